"""OpenVINO's settings: cache, precision, errors, and that nothing reports home."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import openvino.opset13 as ops
import pytest

from models import runtime
from models.runtime import ModelError, Network, compile_network


def doubling() -> openvino.Model:
    x = ops.parameter([1, 4], np.float32, name="x")
    y = ops.multiply(x, ops.constant(np.float32(2)))
    y.output(0).get_tensor().set_names({"twice"})
    return openvino.Model([y], [x], "doubling")


def never() -> openvino.Model:
    raise AssertionError("the compiled network should have come from the cache")


def run(network: Network) -> list[float]:
    return network(np.arange(4, dtype=np.float32)[None])[0][0].tolist()


def test_a_network_runs_with_the_settings_asked_for() -> None:
    network = compile_network(doubling, key="doubling")
    assert run(network) == [0, 2, 4, 6]
    assert network.output_names == ["twice"]
    assert network.input_shape == (1, 4)
    assert network.device == "CPU"
    assert network.compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert network.precision == "f32"


def test_the_second_start_takes_the_compiled_network_from_the_cache(tmp_path: Path) -> None:
    compile_network(doubling, key="doubling", cache_dir=tmp_path / "new")
    assert run(compile_network(never, key="doubling", cache_dir=tmp_path / "new")) == [0, 2, 4, 6]


@pytest.mark.parametrize("what", ["other key", "other source", "changed source", "other threads"])
def test_anything_else_is_compiled_anew(tmp_path: Path, what: str) -> None:
    source, other = tmp_path / "a.onnx", tmp_path / "b.onnx"
    source.write_bytes(b"1")
    other.write_bytes(b"1")
    compile_network(doubling, key="doubling", sources=[source], cache_dir=tmp_path)
    if what == "changed source":
        source.write_bytes(b"22")
    built = []

    def build() -> openvino.Model:
        built.append(1)
        return doubling()

    compile_network(
        build,
        key="tripling" if what == "other key" else "doubling",
        sources=[other if what == "other source" else source],
        threads=2 if what == "other threads" else 1,
        cache_dir=tmp_path,
    )
    assert built


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_cache_entry_is_said_and_made_anew(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    compile_network(doubling, key="doubling", cache_dir=tmp_path)
    (entry,) = tmp_path.glob("*.blob")
    whole = entry.read_bytes()
    entry.write_bytes(whole[:-3] + b"xyz" if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert run(compile_network(doubling, key="doubling", cache_dir=tmp_path)) == [0, 2, 4, 6]
    assert "damaged" in caplog.text
    assert run(compile_network(never, key="doubling", cache_dir=tmp_path)) == [0, 2, 4, 6]


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        assert run(compile_network(doubling, key="doubling", cache_dir=blocked / "cache")) == [0, 2, 4, 6]
    assert "cannot be" in caplog.text


def test_bf16_is_chosen_only_where_it_is_allowed_and_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "bf16_is_quicker", lambda: True)
    assert runtime.chosen_precision("auto", bf16_allowed=True) == "bf16"
    assert runtime.chosen_precision("auto", bf16_allowed=False) == "f32"
    assert runtime.chosen_precision("f32", bf16_allowed=True) == "f32"
    monkeypatch.setattr(runtime, "bf16_is_quicker", lambda: False)
    assert runtime.chosen_precision("auto", bf16_allowed=True) == "f32"
    with pytest.raises(ValueError, match=r"'int8'.*auto, f32, bf16"):
        runtime.chosen_precision("int8", bf16_allowed=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "hardware", "quicker"),
    [
        ("avx2 avx512f avx512_bf16 amx_bf16", True, True),
        ("avx2 avx512f avx512_bf16", True, False),
        ("AuthenticAMD avx2 avx512f avx512_bf16", True, True),
        ("AuthenticAMD avx2 avx512f", False, False),
        ("avx2 avx512f", False, False),
        ("asimd bf16", True, True),
    ],
)
def test_the_flags_of_the_processor_say_what_bf16_is_worth(
    flags: str, hardware: bool, quicker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AnyProcessor:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "BF16"]

    monkeypatch.setattr(runtime, "core", AnyProcessor)
    monkeypatch.setattr(runtime.Path, "read_text", lambda path, **_: f"processor : 0\nflags : {flags}\n")
    assert (runtime.has_bf16_hardware(), runtime.bf16_is_quicker()) == (hardware, quicker)


def test_a_gpu_that_is_not_there_falls_back_to_the_cpu_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    if any(name.startswith("GPU") for name in runtime.core().available_devices):
        pytest.skip("this machine has a GPU")
    with caplog.at_level(logging.WARNING):
        network = compile_network(doubling, key="doubling", device="GPU")
    assert network.device == "CPU"
    assert run(network) == [0, 2, 4, 6]
    assert len(caplog.records) == 1
    assert compile_network(doubling, key="doubling", device="auto").device == "CPU"


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        runtime.read(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ModelError, match=r"text\.onnx cannot be read"):
        runtime.read(tmp_path / "text.onnx")


def test_threads_must_be_positive() -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        compile_network(doubling, key="doubling", threads=0)


def test_openvino_does_not_load_the_package_that_reports_home() -> None:
    code = (
        "import models.runtime, sys\n"
        "assert models.runtime.core()\n"
        "print([m for m in sys.modules if m.startswith('openvino_telemetry') and sys.modules[m]])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
