"""The expression network on an NVIDIA GPU, by torch, where both are there. It chooses itself; untested on a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.runtime import ModelError

log = logging.getLogger(__name__)


def cuda_devices() -> int:
    """Return how many CUDA devices the driver knows, 0 without a driver.

    Asks the driver itself: importing torch only to learn that there is none costs seconds and memory.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def usable() -> bool:
    """Whether torch and a GPU are there."""
    return importlib.util.find_spec("torch") is not None and cuda_devices() > 0


class TorchExpressionClassifier:
    """The shipped network, run by torch from its weights. Same interface as ``models.expression.ExpressionClassifier``.

    Args:
        weights: the ``.pt`` file beside the ONNX file, whose ``.json`` tells the network's shape and temperature.
        device: ``cuda`` or ``cpu``.

    Raises:
        ModelError: a file is missing or does not fit, or torch cannot use the device.
    """

    def __init__(self, weights: Path, *, device: str = "cuda") -> None:
        import torch

        from models.train.config import RunConfig
        from models.train.network import new_network

        self._torch: Any = torch
        self._device = device
        try:
            card = json.loads(weights.with_name("expression.json").read_text(encoding="utf-8"))
            state = torch.load(weights, map_location="cpu", weights_only=True)
            config = RunConfig.model_validate(state["config"])
            network = new_network(config)
            network.load_state_dict(state["average"])
            # The weights are those to go on training from; what ships differs by how it weighs rare expressions.
            network.head.bias.data = torch.tensor(card["head_bias"], dtype=torch.float32)
            self._network = network.float().eval().to(device)
            self._temperature = float(card["temperature"])
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise ModelError(f"{weights} cannot be run by torch on {device}: {error}") from error
        self.size = config.size
        self.precision = "f32"

    def classify(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, 7), rows summing to 1, of grey crops (N, S, S) uint8."""
        torch = self._torch
        if not len(faces):
            return np.zeros((0, 7), np.float32)
        with torch.inference_mode():
            grey = torch.from_numpy(np.array(faces))[:, None].to(self._device).float() / 255
            probabilities = torch.softmax(self._network(grey) / self._temperature, dim=1)
        return np.asarray(probabilities.cpu().numpy(), np.float32)
