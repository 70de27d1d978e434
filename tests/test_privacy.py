"""What a running Mien shows and keeps of faces that nobody may see, and of people who are forgotten."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from common import control, forgetting, jpeg, people, snapshots
from common.enrolment import PhotoReader, Rejected
from common.media import sample
from common.settings import Config
from common.store import Store
from common.watching import Seen, Viewer, read
from tests.analysing import analysed, clip
from tests.conftest import ROOT, stage_environment
from tests.people import frame_of, own_data_dir
from tests.test_people import Watched, enrol_woman

WOMAN = 30  # a frame of the clip
RECOGNISED = 0.6  # distance up to which a picture may show her


@pytest.fixture
def config(config: Config, tmp_path: Path) -> Config:
    storage = config.storage.model_copy(update={"data_dir": own_data_dir(tmp_path / "own")})
    return config.model_copy(update={"storage": storage})


@contextlib.contextmanager
def viewing(mien: Watched) -> Iterator[Viewer]:
    """A viewer of a running Mien's camera, closed before that ends."""
    viewer = Viewer(mien.config)
    viewer.watch("cam0")
    try:
        yield viewer
    finally:
        viewer.close()


def previews(mien: Watched, viewer: Viewer, count: int, *, analysed: bool) -> list[Seen]:
    """Return previews that come from now on: with an analysed face, or without an analysis."""
    found: list[Seen] = []

    def enough() -> bool:
        while (parts := viewer.receive()) is not None:
            seen = read(parts)
            result = seen.preview.result
            if seen.preview.analysed == analysed and (result.faces or not analysed):
                found.append(seen)
        return len(found) >= count

    mien.until(enough, f"{count} previews", 60)
    return found


def pixels(seen: Seen) -> NDArray[np.uint8]:
    return jpeg.decode(seen.jpeg, seen.preview.result.width, seen.preview.result.height)


class Eye:
    """Tells whether a picture shows the woman of the clip, with the models that Mien itself uses."""

    def __init__(self, config: Config) -> None:
        self._reader = PhotoReader(config)
        self._hers = self._reader.reference_of(frame_of("woman.mp4", WOMAN), "").embedding

    def knows(self, picture: NDArray[np.uint8]) -> bool:
        try:
            seen = self._reader.reference_of(picture, "").embedding
        except Rejected:
            return False
        return float(np.linalg.norm(seen - self._hers)) < RECOGNISED


@pytest.mark.parametrize(
    ("blur", "consent", "hidden"),
    [
        ("no_consent", "refused", True),
        pytest.param("unknown", None, True, marks=pytest.mark.slow),
        pytest.param("no_consent", "given", False, marks=pytest.mark.slow),
    ],
)
def test_a_face_that_nobody_may_see_is_unrecognisable_in_previews_and_snapshots(
    config: Config, blur: str, consent: str | None, hidden: bool
) -> None:
    if consent is not None:
        enrol_woman(config, consent=consent)
    eye = Eye(config)
    with Watched(config, str(sample("woman.mp4")), privacy={"blur": blur}) as mien:
        mien.until_now("known" if consent == "given" else "unknown")
        with viewing(mien) as viewer:
            # A face that was undecided a moment ago stays covered for a second.
            shown = previews(mien, viewer, 60, analysed=True)[-12:]
        reply = control.ask(mien.config, "snapshot", "snapshot", timeout_s=20, camera="cam0")
        assert reply.ok, reply.error
    kept = sorted(snapshots.folder(config).glob("*.jpg"))
    assert len(kept) == 2  # plain and annotated
    pictures = [pixels(seen) for seen in shown[::3]] + [np.asarray(cv2.imread(str(path)), np.uint8) for path in kept]
    recognised = [eye.knows(picture) for picture in pictures]
    assert not any(recognised) if hidden else any(recognised[:-2]) and any(recognised[-2:])


@pytest.mark.parametrize("hidden", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["blurred", "clear"])
def test_the_annotated_video_of_an_analysis_shows_nobody_either(config: Config, tmp_path: Path, hidden: bool) -> None:
    settings = tmp_path / "mien.toml"
    settings.write_text(f'[privacy]\nblur = "{"unknown" if hidden else "none"}"\n')
    eye = Eye(config)
    short = clip(sample("woman.mp4"), tmp_path / "short.mp4", "-frames:v", str(WOMAN))
    video = tmp_path / "annotated.mp4"
    data_dir = str(config.storage.data_dir)
    rows = analysed(
        short, tmp_path / "rows.jsonl", "--annotated", str(video), "--config", str(settings), "--data-dir", data_dir
    )
    assert all(row["faces"] == 1 for row in rows)
    capture = cv2.VideoCapture(str(video))
    shown = [np.asarray(capture.read()[1], np.uint8) for _ in range(len(rows))]
    capture.release()
    recognised = [eye.knows(picture) for picture in shown[::5]]
    assert not any(recognised) if hidden else any(recognised)


def test_a_picture_whose_analysis_has_not_come_is_blurred_whole(config: Config) -> None:
    eye = Eye(config)
    with Watched(config, str(sample("woman.mp4")), privacy={"blur": "unknown"}) as mien:
        mien.until_now("unknown")
        workers = mien.processes("detection")
        with viewing(mien) as viewer:
            clear = pixels(previews(mien, viewer, 1, analysed=True)[0])
            for worker in workers:
                worker.suspend()  # they hang: nothing is analysed until they are replaced
            blind = [pixels(seen) for seen in previews(mien, viewer, 3, analysed=False)]
        for worker in workers:
            if worker.is_running():
                worker.resume()
    for picture in blind:
        assert not eye.knows(picture)
        # Everywhere, not only where a face was: hardly anything of what neighbours differ by is left.
        assert roughness(picture) < 0.35 * roughness(clear)


def roughness(picture: NDArray[np.uint8]) -> float:
    """Return how much neighbouring pixels differ, away from the middle where the face is blurred in any case."""
    edge = picture[:, : picture.shape[1] // 5].astype(np.float32)
    return float(np.abs(np.diff(edge, axis=0)).mean() + np.abs(np.diff(edge, axis=1)).mean())


def test_a_snapshot_enrols_and_forgetting_takes_it_away_with_the_name(config: Config) -> None:
    with Watched(config, "demo") as mien:
        mien.until_now("unknown")
        reply = control.ask(mien.config, "snapshot", "snapshot", timeout_s=20, camera="cam0")
        assert reply.ok, reply.error
        picture = Path(f"{reply.result['cam0']}.jpg")
        done = launch(mien, "people", "add", "Wanda", "--from", str(picture))
        assert done.returncode == 0, done.stderr
        assert mien.until_now("known", 10).identity.name == "Wanda"
        assert control.ask(mien.config, "conductor", "select", person=1).ok
        reply = control.ask(mien.config, "snapshot", "snapshot", timeout_s=20, camera="cam0")
        assert reply.ok and "Wanda" in Path(f"{reply.result['cam0']}.json").read_text()
        with Store(config.storage.place) as store, ThreadPoolExecutor(2) as pool:
            forgotten = pool.submit(forgetting.forget, store, mien.config, "Wanda")

            def photographed() -> int:
                taken = 0
                while not forgotten.done():
                    taken += control.ask(mien.config, "snapshot", "snapshot", timeout_s=20, camera="cam0").ok
                return taken

            pictures = pool.submit(photographed)
            mien.until(lambda: (f := mien.now()) is not None and f.identity.name is None, "she is forgotten", 5)
            seen = len(mien.results)
            forgotten.result(60)
            assert pictures.result(60) > 0
            assert not list(snapshots.folder(mien.config).glob(f"{Path(str(reply.result['cam0'])).name}*"))
            # Nor is she in what was taken meanwhile, by processes that did not know yet.
            kept = [path.read_text() for path in snapshots.folder(mien.config).glob("*.json")]
            assert kept and not any("Wanda" in told for told in kept)
            mien.fresh_results(30)
        # No process says the name any more, nor does one that is started now.
        for worker in mien.processes("conductor"):
            worker.kill()
        mien.until(lambda: len(mien.processes("conductor")) == 1, "another conductor", 30)
        mien.fresh_results(10)
        assert all(face.identity.name is None for result in mien.results[seen:] for face in result.faces)
        reply = control.ask(mien.config, "snapshot", "snapshot", timeout_s=20, camera="cam0")
        assert reply.ok and "Wanda" not in Path(f"{reply.result['cam0']}.json").read_text()
    with Store(config.storage.place) as store:
        assert not any("Wanda" in line.about for line in people.audit_log(store))


def launch(mien: Watched, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch.py"), *arguments, "--config", str(mien.path)]
    return subprocess.run(command, env=stage_environment(), capture_output=True, text=True, timeout=90)
