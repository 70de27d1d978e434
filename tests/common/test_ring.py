"""Pictures in shared memory: they arrive whole, are kept while they are needed, and are gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import ring
from common.messages import RING_SLOTS, MessageError, Slot
from common.ring import RingReader, RingWriter, remove_rings, ring_dir
from common.rundir import RunDir
from common.settings import Config

WIDTH, HEIGHT = 64, 48


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config(run_dir=tmp_path / "run")
    with RunDir(made):
        return made


def picture(value: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def written(writer: RingWriter, value: int) -> Slot:
    slot = writer.put(picture(value))
    assert slot is not None
    return slot


def test_a_picture_is_read_where_it_was_written(config: Config) -> None:
    writer, reader = RingWriter(config, "cam0"), RingReader(config)
    for value in range(3 * RING_SLOTS):
        slot = written(writer, value)
        view = reader.picture(slot, WIDTH, HEIGHT)
        assert (view == value).all()
        assert not view.flags.writeable
        reader.check(slot, WIDTH, HEIGHT)
    writer.close()


def test_another_process_sees_it(config: Config) -> None:
    writer = RingWriter(config, "cam0")
    slot = written(writer, 77)
    program = (
        "import sys; from pathlib import Path; from common.settings import Config; from common.ring import RingReader\n"
        "from common.messages import Slot\n"
        f"reader = RingReader(Config(run_dir=Path({str(config.run_dir)!r})))\n"
        f"slot = Slot.model_validate({slot.model_dump()!r})\n"
        f"print(int(reader.picture(slot, {WIDTH}, {HEIGHT}).sum()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == 77 * WIDTH * HEIGHT * 3
    writer.close()


def test_who_reads_too_late_is_told(config: Config) -> None:
    writer, reader = RingWriter(config, "cam0"), RingReader(config)
    slot = written(writer, 1)
    reader.picture(slot, WIDTH, HEIGHT)
    for value in range(RING_SLOTS):
        written(writer, value)
    with pytest.raises(MessageError, match="overwritten"):
        reader.check(slot, WIDTH, HEIGHT)
    with pytest.raises(MessageError, match="overwritten"):
        reader.picture(slot, WIDTH, HEIGHT)
    writer.close()


def test_a_held_picture_is_not_overwritten_and_a_full_ring_says_so(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = RingWriter(config, "cam0"), RingReader(config)
    first = written(writer, 9)
    held = reader.hold(first, WIDTH, HEIGHT)
    for value in range(3 * RING_SLOTS):
        written(writer, value)
    assert (reader.picture(first, WIDTH, HEIGHT) == 9).all()

    others = [reader.hold(written(writer, 1), WIDTH, HEIGHT) for _ in range(RING_SLOTS - 1)]
    assert writer.put(picture(2)) is None  # goes as bytes
    del others
    assert writer.put(picture(2)) is not None
    # A conductor that died releases nothing: its holds run out.
    monkeypatch.setattr(ring, "HELD_AT_MOST_S", -1.0)
    assert writer.put(picture(3)) is not None
    del held
    writer.close()


def test_another_size_gets_another_ring(config: Config) -> None:
    writer, reader = RingWriter(config, "cam0"), RingReader(config)
    small = written(writer, 5)
    large = writer.put(np.full((2 * HEIGHT, 2 * WIDTH, 3), 6, np.uint8))
    assert large is not None
    assert large.ring != small.ring
    assert (reader.picture(large, 2 * WIDTH, 2 * HEIGHT) == 6).all()
    with pytest.raises(MessageError, match="cannot be read"):
        reader.picture(small, WIDTH, HEIGHT)  # never opened here, and gone
    with pytest.raises(MessageError, match="cannot be read"):
        RingReader(config).picture(large, WIDTH, HEIGHT)  # a size that is not the ring's
    writer.close()


def test_large_pictures_have_fewer_places(config: Config) -> None:
    writer, reader = RingWriter(config, "cam0"), RingReader(config)
    width, height = 3840, 2160
    slots = [writer.put(np.full((height, width, 3), value, np.uint8)) for value in range(9)]
    assert {slot.number for slot in slots if slot is not None} == set(range(6))
    assert slots[-1] is not None
    assert (reader.picture(slots[-1], width, height)[::99, ::99] == 8).all()
    with pytest.raises(MessageError, match="has 6 pictures, no number 7"):
        reader.picture(slots[-1].model_copy(update={"number": 7}), width, height)
    writer.close()


def test_what_a_killed_process_has_left_goes_when_its_successor_begins_and_no_name_comes_twice(config: Config) -> None:
    killed, neighbour, reader = RingWriter(config, "cam0"), RingWriter(config, "cam0-b"), RingReader(config)
    old, other = written(killed, 1), written(neighbour, 2)
    assert (reader.picture(old, WIDTH, HEIGHT) == 1).all()  # mapped from now on
    successor = RingWriter(config, "cam0")
    new = written(successor, 3)
    directory = ring_dir(config)
    assert directory is not None
    assert {path.name for path in directory.iterdir()} == {new.ring, other.ring}
    assert (reader.picture(new, WIDTH, HEIGHT) == 3).all()
    neighbour.close()
    successor.close()


def test_pictures_that_are_too_large_or_leave_the_machine_travel_as_bytes(tmp_path: Path) -> None:
    here = Config(run_dir=tmp_path / "run")
    assert RingWriter(here, "cam0").put(np.zeros((4320, 7680, 3), np.uint8)) is None
    far = here.model_copy(update={"endpoints": here.endpoints.model_copy(update={"jobs": "tcp://10.0.0.1:5570"})})
    assert ring_dir(far) is None
    assert RingWriter(far, "cam0").put(picture(1)) is None
    assert ring_dir(here.model_copy(update={"every_frame": True})) is None
    with pytest.raises(MessageError, match="shares none"):
        RingReader(far).picture(Slot(ring="cam0-1-1", number=0, generation=1), WIDTH, HEIGHT)


def test_nothing_is_left_and_nobody_elses_directory_is_used(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    directory = ring_dir(config)
    assert directory is not None
    with RunDir(config):
        writer = RingWriter(config, "cam0")
        written(writer, 1)
        assert list(directory.iterdir())
    assert not directory.exists()

    directory.mkdir(mode=0o755)
    os.chmod(directory, 0o755)  # others can read it: pictures of people do not go there
    assert RingWriter(config, "cam0").put(picture(1)) is None
    assert "of this user alone" in caplog.text
    remove_rings(config)
    assert directory.exists()
    directory.rmdir()
