"""Compiles networks with OpenVINO and runs them, on one thread unless told otherwise.

Everything that has to do with OpenVINO's settings is here: threads, precision, device, cache of compiled networks. The
GPU path (device "GPU", or "auto" where OpenVINO has a GPU) is untested: no machine with a GPU was at hand.
"""

import contextlib
import functools
import hashlib
import logging
import os
import platform
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

# `import openvino` reports itself to its maker's statistics server through this package. With the package hidden it
# falls back to its own stand-in that sends nothing. A worker in a hospital has nobody to report to.
if "openvino" not in sys.modules:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino

from models import sums

log = logging.getLogger(__name__)

Precision = Literal["auto", "f32", "bf16"]
Device = Literal["auto", "CPU", "GPU"]

_BLOB_HEADER = struct.Struct("<8sII")  # magic, CRC-32 and length of what follows
_BLOB_MAGIC = b"MIENBLB1"

_inference_cpu_s = 0.0
_core: openvino.Core | None = None
_core_lock = threading.Lock()


class ModelError(Exception):
    """A model file is missing, damaged or not what it should be; the message names the file and says what to do."""


def core() -> openvino.Core:
    """The one OpenVINO core of this process."""
    global _core
    with _core_lock:
        if _core is None:
            _core = openvino.Core()
        return _core


def inference_cpu_s() -> float:
    """Processor time that this process has spent in networks so far, seconds."""
    return _inference_cpu_s


def check(path: Path) -> None:
    """Raise ModelError when a weight file is missing, cannot be read, or is another one than was listed."""
    if not path.is_file():
        raise ModelError(
            f"the model file {path} does not exist: check the path, or install the package that carries it"
        )
    try:
        if not sums.damaged(path):
            return
    except OSError as error:
        raise ModelError(f"the model file {path} cannot be read: {error.strerror}") from error
    raise ModelError(
        f"the model file {path} is damaged (its checksum is another one than {sums.SUMS}, or the package that it "
        "belongs to, lists): fetch it again"
    )


def read(path: Path) -> openvino.Model:
    """Read an ONNX (or OpenVINO IR) file. Raises ModelError when it is missing or damaged."""
    check(path)
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and weights.is_file():
        check(weights)
    try:
        return core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"the model file {path} cannot be read ({reason}): it is damaged or of another kind; fetch it again"
        ) from error


def has_bf16_hardware() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulating it costs more than it saves.

    OpenVINO lists BF16 for every processor with AVX-512, emulated or not, so on Linux the processor's own flags decide.
    """
    return any("bf16" in flag for flag in _bf16_flags())


def bf16_is_quicker() -> bool:
    """Whether bfloat16 is the quicker one here: with AMX or on AMD; on ARM it is believed to be (untested).

    AVX512-BF16 halves the time on AMD. An Intel processor without AMX takes longer with it than with float32: the
    detector 1.6 times, the expression network 1.3 to 1.5 times (``bench/detector.py``, ``bench/networks.py``).
    """
    flags = _bf16_flags()
    return bool({"amx_bf16", "bf16"} & flags) or {"avx512_bf16", "AuthenticAMD"} <= flags


def int8_is_quicker() -> bool:
    """Whether eight bits are the quickest here: the processor adds up their products itself (VNNI, AMX)."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & _processor_words())


def _bf16_flags() -> frozenset[str]:
    """What the processor has for bfloat16, and its maker's name where that matters."""
    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return frozenset()
    # Where the system does not tell, OpenVINO's word must do.
    return frozenset({"avx512_bf16", "amx_bf16", "bf16", "AuthenticAMD"} & (_processor_words() or {"bf16"}))


def _processor_words() -> frozenset[str]:
    """What Linux says of the processor; elsewhere nothing."""
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return frozenset()


def chosen_precision(precision: Precision, *, bf16_allowed: bool) -> Literal["f32", "bf16"]:
    """What `precision` comes to on this machine: "auto" is bf16 where the caller allows it and where it is quicker."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}, must be one of {', '.join(get_args(Precision))}")
    if precision == "auto":
        return "bf16" if bf16_allowed and bf16_is_quicker() else "f32"
    return precision


class Network:
    """A compiled network with one request and reusable input buffers; not for use by two threads at once."""

    def __init__(
        self,
        compiled: openvino.CompiledModel,
        *,
        device: str,
        precision: str,
        otherwise: Callable[[], "Network"] | None = None,
    ) -> None:
        self.device = device
        self._otherwise = otherwise
        self.precision = precision
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._inputs: tuple[NDArray[Any], ...] = ()  # what the request looks at, kept alive
        self.output_names = [next(iter(sorted(port.get_names())), "") for port in compiled.outputs]  # in order

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the first input; -1 where it may vary."""
        dimensions = self.compiled.inputs[0].get_partial_shape()
        return tuple(d.get_length() if d.is_static else -1 for d in dimensions)

    def __call__(self, *inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Run the network. The returned arrays are views that the next call overwrites: copy what must last longer.

        Inputs are contiguous arrays of the network's own shape and type; they are used in place, not copied.
        """
        global _inference_cpu_s
        began = time.process_time()  # of the process: a network may compute on more than this thread
        self._inputs = inputs
        try:
            outputs = self._infer()
        except RuntimeError as error:
            self._recover(str(error).strip().splitlines()[-1])
            outputs = self._infer()
        _inference_cpu_s += time.process_time() - began
        return outputs

    def _infer(self) -> tuple[NDArray[Any], ...]:
        # Given as tensors: to see what kind of arguments it gets costs OpenVINO's `infer` a tenth of a millisecond.
        for index, array in enumerate(self._inputs):
            self._request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
        return tuple(self._request.infer(share_outputs=True).values())

    def _recover(self, why: str) -> None:
        """After an error at run time: the other device where there is one, else a fresh request on this one."""
        if self._otherwise is None:
            log.warning("the network failed on the %s (%s): trying once more", self.device, why)
            self._request = self.compiled.create_infer_request()
            return
        log.warning("the network failed on the %s, going on with the CPU: %s", self.device, why)
        other = self._otherwise()
        self.compiled, self._request = other.compiled, other._request
        self.device, self.precision, self._otherwise = other.device, other.precision, None

    def profile(self) -> list[tuple[str, str, str, float]]:
        """(layer, type, kernel, ms) of the last run, when compiled with profiling."""
        return [
            (info.node_name, info.node_type, info.exec_type, info.real_time.total_seconds() * 1e3)
            for info in self._request.profiling_info
        ]


def compile_network(
    build: Callable[[], openvino.Model],
    *,
    key: str,
    sources: Sequence[Path] = (),
    threads: int = 1,
    precision: Precision = "auto",
    bf16_allowed: bool = False,
    device: Device = "CPU",
    cache_dir: Path | None = None,
    profiling: bool = False,
) -> Network:
    """Compile the network that `build()` gives; `build` is not called when the compiled network is in the cache.

    `key` names the network and everything that `build` depends on except the weight files, which are `sources`: their
    size and time of change are part of the cache's key, and so are OpenVINO's version, the processor and the settings.
    A damaged cache entry is made anew. Raises ModelError from `build`, or when OpenVINO refuses the network.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}, must be at least 1")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # OpenVINO would pin the threads of every process to the same first cores.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": chosen_precision(precision, bf16_allowed=bf16_allowed),
    }
    if profiling:
        settings["PERF_COUNT"] = True
    on_cpu = functools.partial(_compile_on_cpu, build, key, sources, settings, cache_dir)
    if device == "GPU" or (device == "auto" and any(name.startswith("GPU") for name in core().available_devices)):
        on_gpu = _compile_on_gpu(build, settings, on_cpu)
        if on_gpu is not None:
            return on_gpu
    return on_cpu()


def _compile_on_cpu(
    build: Callable[[], openvino.Model],
    key: str,
    sources: Sequence[Path],
    settings: Mapping[str, Any],
    cache_dir: Path | None,
) -> Network:
    chosen = str(settings["INFERENCE_PRECISION_HINT"])
    cached = None if cache_dir is None else cache_dir / f"{_cache_key(key, sources, settings)}.blob"
    compiled = None if cached is None else _load(cached, settings)
    if compiled is None:
        model = build()
        try:
            compiled = core().compile_model(model, "CPU", dict(settings))
        except RuntimeError as error:
            names = ", ".join(str(path) for path in sources) or key
            raise ModelError(f"OpenVINO cannot compile {names}: {str(error).strip().splitlines()[-1]}") from error
        if cached is not None:
            _store(cached, compiled)
    return Network(compiled, device="CPU", precision=chosen)


def _compile_on_gpu(
    build: Callable[[], openvino.Model], settings: Mapping[str, Any], on_cpu: Callable[[], Network]
) -> Network | None:
    """The network on the GPU, or None, said in one log line, when that does not work. Untested: no GPU at hand."""
    gpu_settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if settings.get("PERF_COUNT"):
        gpu_settings["PERF_COUNT"] = "YES"
    try:
        compiled = core().compile_model(build(), "GPU", gpu_settings)
        return Network(compiled, device="GPU", precision="f32", otherwise=on_cpu)
    except RuntimeError as error:
        log.warning("the GPU cannot run this network, using the CPU: %s", str(error).strip().splitlines()[-1])
        return None


def _cache_key(key: str, sources: Sequence[Path], settings: Mapping[str, Any]) -> str:
    parts = [key, openvino.__version__, platform.machine(), str(core().get_property("CPU", "FULL_DEVICE_NAME"))]
    parts += [",".join(sorted(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")))]
    parts += [f"{name}={settings[name]}" for name in sorted(settings)]
    for path in sources:
        if not path.is_file():
            raise ModelError(
                f"the model file {path} does not exist: check the path, or install the package that carries it"
            )
        status = path.stat()
        parts.append(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _load(path: Path, settings: Mapping[str, Any]) -> openvino.CompiledModel | None:
    """A compiled network from the cache, or None when there is none or it is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("the compiled network %s cannot be read (%s); compiling again", path, error)
        return None
    if len(data) < _BLOB_HEADER.size:
        log.warning("the compiled network %s is damaged; compiling again", path)
        return None
    magic, checksum, length = _BLOB_HEADER.unpack_from(data)
    body = np.frombuffer(data, np.uint8, offset=_BLOB_HEADER.size)
    if magic != _BLOB_MAGIC or length != body.size or checksum != zlib.crc32(data[_BLOB_HEADER.size :]):
        log.warning("the compiled network %s is damaged; compiling again", path)
        return None
    try:
        return core().import_model(openvino.Tensor(body), "CPU", dict(settings))
    except RuntimeError as error:
        log.warning(
            "OpenVINO refuses the compiled network %s (%s); compiling again", path, str(error).strip().splitlines()[-1]
        )
        return None


def _store(path: Path, compiled: openvino.CompiledModel) -> None:
    """Put a compiled network in the cache, whole or not at all; a cache that cannot be written only costs time."""
    temporary = path.with_suffix(f".{os.getpid()}.part")
    try:
        exported = compiled.export_model()
        body = exported if isinstance(exported, bytes) else exported.getvalue()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(_BLOB_HEADER.pack(_BLOB_MAGIC, zlib.crc32(body), len(body)) + body)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        log.warning(
            "the compiled network cannot be kept in %s (%s); the next start compiles it again", path.parent, error
        )
        with contextlib.suppress(OSError):  # it may not be there, and the folder neither
            temporary.unlink()
