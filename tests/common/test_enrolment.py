"""Photographs of all kinds become references, or are rejected with a reason."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import update

from common import config as configuration
from common import enrolment, forgetting, people, photos
from common.config import load
from common.enrolment import PhotoReader, Rejected, SomebodyElse
from common.media import data_dir, sample
from common.page import enrol as page_enrol
from common.people import LooksAlike, NameTaken, NotEnrolled, PeopleError
from common.photos import PhotoError
from common.schema import REFERENCE
from common.settings import Config
from common.store import Store
from tests.people import own_data_dir


@pytest.fixture(scope="module")
def config() -> Config:
    return load(overrides={"storage": {"data_dir": data_dir()}}, environment={})


@pytest.fixture(scope="module")
def reader(config: Config) -> PhotoReader:
    return PhotoReader(config)


def obama(size: int = 700) -> Image.Image:
    with Image.open(sample("obama.jpg")) as picture:
        picture.thumbnail((size, size))
        return picture.convert("RGB")


SAVED = {
    "jpg": {}, "png": {}, "webp": {"quality": 95}, "gif": {}, "bmp": {}, "tiff": {}, "heic": {"quality": 90},
}  # fmt: skip


@pytest.mark.parametrize("suffix", SAVED)
def test_every_kind_of_picture_gives_the_same_person(tmp_path: Path, reader: PhotoReader, suffix: str) -> None:
    if suffix == "heic":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    path = tmp_path / f"photo.{suffix}"
    obama().save(path, **SAVED[suffix])  # type: ignore[arg-type]
    wanted = reader.reference(sample("obama.jpg")).embedding
    assert np.linalg.norm(reader.reference(path).embedding - wanted) < 0.25


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "RGBA", "LA", "I;16"])
def test_every_colour_mode_is_read(tmp_path: Path, reader: PhotoReader, mode: str) -> None:
    if mode == "I;16":
        grey = np.asarray(obama().convert("L"), np.uint16) * 256
        picture = Image.fromarray(grey)
    else:
        picture = obama().convert(mode)
    path = tmp_path / ("photo.tiff" if mode in ("CMYK", "I;16") else "photo.png")
    picture.save(path)
    wanted = reader.reference(sample("obama.jpg")).embedding
    assert np.linalg.norm(reader.reference(path).embedding - wanted) < 0.4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:20, :30] = (255, 0, 0)  # red at the upper left
    turns = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    Image.fromarray(np.ascontiguousarray(turns[orientation])).save(path, exif=exif)
    got = photos.read(path)
    assert got.shape == (40, 60, 3)
    assert got[5, 5].tolist() == [0, 0, 255] and got[35, 55].tolist() == [0, 0, 0]  # BGR


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    for size in ((60_000, 60_000), (20_000, 10_000)):
        path.write_bytes(png_that_claims(*size))
        with pytest.raises(PhotoError, match="million"):
            photos.read(path)


def test_what_is_no_picture_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    for content in (b"", b"not a picture", sample("obama.jpg").read_bytes()[:5000], os.urandom(5000)):
        path.write_bytes(content)
        with pytest.raises(PhotoError):
            photos.read(path)
    with pytest.raises(PhotoError):
        photos.read(tmp_path / "nowhere.jpg")


def damaged_avif() -> bytes:
    """An AVIF file whose head is right, and whose picture is not."""
    whole = io.BytesIO()
    obama(200).save(whole, "AVIF")
    content = whole.getvalue()
    begin = content.index(b"mdat") + 4
    return content[:begin] + os.urandom(len(content) - begin)


def unknown_dds() -> bytes:
    """A texture of a kind that nobody has ever heard of."""
    kind = struct.pack("<II4s5I", 32, 4, b"XXXX", *[0] * 5)
    return b"DDS " + struct.pack("<7I44x", 124, 0x1007, 8, 8, 0, 0, 0) + kind + bytes(20)


@pytest.mark.parametrize("content", [damaged_avif, unknown_dds])
def test_a_decoder_may_fail_in_any_way(tmp_path: Path, content: Callable[[], bytes]) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content())
    with pytest.raises(PhotoError, match=r"damaged|of a kind"):
        photos.read(path)


def test_a_file_name_that_is_no_text_is_kept_as_text(tmp_path: Path, reader: PhotoReader) -> None:
    path = tmp_path / os.fsdecode(b"M\xfcller.jpg")
    path.write_bytes(sample("obama.jpg").read_bytes())
    with Store(tmp_path / "data") as store:
        report = enrolment.enrol(store, reader, {"Obama": [path]})
        assert [person.name for person in report.enrolled] == ["Obama"]
        assert people.references_of(store, "Obama")[0][1].source == "M\\xfcller.jpg"


def test_what_is_said_of_new_people_is_not_said_of_those_who_are_there(tmp_path: Path, reader: PhotoReader) -> None:
    with Store(tmp_path / "data") as store:
        people.add(store, "Obama", [reader.reference(sample("obama.jpg"))], role="staff", consent_until=5e9)
        more = {"Obama": [sample("obama2.jpg")]}
        [same] = enrolment.enrol(store, reader, more, again=True, role="visitor").extended
        assert (same.role, same.consent_until) == ("staff", 5e9)
        [other] = enrolment.enrol(store, reader, more, again=True, changes={"consent_until": 4e9}).extended
        assert (other.role, other.consent_until) == ("staff", 4e9)


def test_pictures_that_show_nobody_for_certain_are_rejected_with_the_reason(reader: PhotoReader) -> None:
    face = np.asarray(cv2.imread(str(sample("obama.jpg"))), np.uint8)
    small = np.full((600, 800, 3), 90, np.uint8)
    small[250:310, 380:428] = cv2.resize(face, (48, 60))
    cases = {
        "no face": np.full((400, 400, 3), 127, np.uint8),
        "faces were found": np.asarray(cv2.imread(str(sample("five_people.jpg"))), np.uint8),
        "small|no face": small,
        "blurred|no face": np.asarray(cv2.GaussianBlur(face, (0, 0), 22), np.uint8),
        "dark|no face": (face // 30).astype(np.uint8),
    }
    for why, picture in cases.items():
        with pytest.raises(Rejected, match=why):
            reader.reference_of(picture, "")


def test_one_face_of_several_can_be_chosen(reader: PhotoReader) -> None:
    embeddings = [reader.reference(sample("five_people.jpg"), face=face).embedding for face in range(1, 6)]
    apart = np.linalg.norm(np.stack(embeddings)[:, None] - np.stack(embeddings)[None], axis=2)
    assert apart[~np.eye(5, dtype=bool)].min() > 0.4
    with pytest.raises(Rejected, match="face 6"):
        reader.reference(sample("five_people.jpg"), face=6)


def test_the_endings_of_photographs_are_known(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JFIF", "c.heic", "d.txt", "e.mp4"):
        (tmp_path / name).write_bytes(b"")
    assert set(enrolment.plan(tmp_path)) == {"a", "b", "c"}


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name, pictures in {"Obama": ("obama", "obama2"), "Biden": ("biden",)}.items():
        (folder / name).mkdir(parents=True)
        for picture in pictures:
            (folder / name / f"{picture}.jpg").write_bytes(sample(f"{picture}.jpg").read_bytes())
    (folder / "Hiker.jpg").write_bytes(sample("single_face.jpg").read_bytes())
    (folder / "Group.jpg").write_bytes(sample("five_people.jpg").read_bytes())
    (folder / "notes.txt").write_text("not a picture")
    (folder / "broken.png").write_bytes(b"broken")
    return folder


def test_a_folder_enrols_everybody_in_it_and_says_what_was_left_out(tmp_path: Path, reader: PhotoReader) -> None:
    folder = folder_of(tmp_path)
    with Store(tmp_path / "data") as store:
        report = enrolment.enrol(store, reader, enrolment.plan(folder), role="staff")
        assert {(person.name, person.references) for person in report.enrolled} == {
            ("Obama", 2), ("Biden", 1), ("Hiker", 1),
        }  # fmt: skip
        rejected = {path.name: why for path, why in report.rejected}
        assert set(rejected) == {"Group.jpg", "broken.png"}
        assert str(rejected["Group.jpg"]) == "5 faces were found"  # what helps is said by whoever asked
        assert all(person.role == "staff" for person in people.everybody(store))
        # Once more: everybody is there already, and nothing is doubled.
        again = enrolment.enrol(store, reader, enrolment.plan(folder))
        assert not again.enrolled and len(people.everybody(store)) == 3
        more = enrolment.enrol(store, reader, {"Obama": [sample("obama3.jpg")]}, again=True)
        assert [person.references for person in more.extended] == [3]


def test_somebody_who_is_enrolled_under_another_name_is_noticed(tmp_path: Path, reader: PhotoReader) -> None:
    with Store(tmp_path / "data") as store:
        enrolment.enrol(store, reader, {"Obama": [sample("obama.jpg")], "Biden": [sample("biden.jpg")]})
        report = enrolment.enrol(store, reader, {"Barack": [sample("obama3.jpg")]})
        assert not report.enrolled and str(report.rejected[0][1]) == "looks like 'Obama', who is enrolled already"
        assert enrolment.enrol(store, reader, {"Barack": [sample("obama3.jpg")]}, again=True).enrolled


def test_who_looks_like_somebody_enrolled_can_be_enrolled_all_the_same_but_not_under_their_name(
    tmp_path: Path, reader: PhotoReader
) -> None:
    with Store(tmp_path / "data") as store:
        enrolment.enrol(store, reader, {"Obama": [sample("obama.jpg")]})
        [(_, why)] = enrolment.enrol(store, reader, {"Obama": [sample("obama2.jpg")]}, alike=True).rejected
        assert isinstance(why, NameTaken) and str(why) == "'Obama' is enrolled already"
        assert enrolment.enrol(store, reader, {"Barack": [sample("obama3.jpg")]}, alike=True).enrolled
        assert [person.references for person in people.everybody(store)] == [1, 1]


def test_pictures_are_added_to_whom_they_are_meant_for_or_to_nobody(tmp_path: Path, reader: PhotoReader) -> None:
    with Store(tmp_path / "data") as store:
        enrolment.enrol(store, reader, {"Obama": [sample("obama.jpg")], "Biden": [sample("biden.jpg")]})
        obama = people.find(store, "Obama")
        people.change(store, "Obama", name="Barack")  # and somebody else gets his name
        people.change(store, "Biden", name="Obama")
        report = enrolment.extend(store, reader, f"#{obama.id}", [sample("obama2.jpg"), sample("five_people.jpg")])
        assert [(one.name, one.references) for one in report.extended] == [("Barack", 2)]
        assert [path.name for path, _ in report.rejected] == ["five_people.jpg"]
        people.merge(store, "Barack", "Obama")
        with pytest.raises(NotEnrolled):
            enrolment.extend(store, reader, f"#{obama.id}", [sample("obama3.jpg")])
        [left] = people.everybody(store)
        assert left.references == 3


def poor_pictures(of: str) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The same photograph blurred, dark, bright, small, grey, turned, noisy and squeezed."""
    picture = np.asarray(cv2.imread(str(sample(of))), np.uint8)
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 25, 1)
    noise = np.random.default_rng(0).normal(0, 40, picture.shape)
    made: list[Any] = [
        cv2.GaussianBlur(picture, (0, 0), 6 * width / 800),
        picture * 0.3,
        np.clip(picture * 1.8, 0, 255),
        cv2.resize(picture, (250, 250 * height // width), interpolation=cv2.INTER_AREA),
        cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR),
        cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE),
        np.clip(picture + noise, 0, 255),
        cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 5])[1], cv2.IMREAD_COLOR),
    ]
    return (np.ascontiguousarray(one, np.uint8) for one in made)


def test_more_pictures_of_somebody_are_taken_also_poor_ones_and_others_faces_are_not(
    tmp_path: Path, reader: PhotoReader
) -> None:
    poor = []
    for name in ("obama.jpg", "obama2.jpg", "obama3.jpg"):
        for index, picture in enumerate(poor_pictures(name)):
            poor.append(tmp_path / f"{index} {name.removesuffix('.jpg')}.png")
            cv2.imwrite(str(poor[-1]), picture)
    others = [sample(name) for name in ("biden.jpg", "single_face.jpg", "portrait_happy.jpg", "portrait_angry.jpg")]
    for known in ("obama.jpg", "obama2.jpg", "obama3.jpg"):
        with Store(tmp_path / f"data {known}") as store:
            enrolment.enrol(store, reader, {"Obama": [sample(known)]})
            for paths in ([one] for one in others):
                report = enrolment.extend(store, reader, "Obama", paths)
                [(path, why)] = report.rejected
                assert isinstance(why, SomebodyElse) and not report.extended, path
                assert str(why) == "it shows somebody else than Obama's pictures"
            report = enrolment.extend(store, reader, "Obama", [others[0], *poor])
            assert [path for path, _ in report.rejected] == [others[0]]
            assert people.find(store, "Obama").references == people.MAX_REFERENCES


@pytest.mark.parametrize("how", ["from the page", "with --again"])
def test_pictures_that_show_somebody_else_are_added_only_when_that_is_meant(
    tmp_path: Path, reader: PhotoReader, how: str
) -> None:
    def add(*names: str, alike: bool = False) -> enrolment.Report:
        paths = [sample(name) for name in names]
        if how == "from the page":
            return enrolment.extend(store, reader, "#1", paths, alike=alike)
        return enrolment.enrol(store, reader, {"Obama": paths}, again=True, alike=alike)

    with Store(tmp_path / "data") as store:
        enrolment.enrol(store, reader, {"Obama": [sample("obama.jpg")]})
        assert [type(why) for _, why in add("biden.jpg").rejected] == [SomebodyElse]
        enrolment.enrol(store, reader, {"Biden": [sample("biden.jpg")]})
        [(_, why)] = add("biden.jpg").rejected
        assert isinstance(why, LooksAlike) and why.whom == "Biden"
        # Of a mixed lot, what is his is taken, also where most of it is not.
        report = add("biden.jpg", "single_face.jpg", "obama2.jpg")
        assert [path.name for path, _ in report.rejected] == ["biden.jpg", "single_face.jpg"]
        assert [one.references for one in report.extended] == [2]
        assert [one.references for one in add("biden.jpg", alike=True).extended] == [3]


def test_pictures_are_not_compared_with_what_another_network_made_of_somebody(
    tmp_path: Path, reader: PhotoReader
) -> None:
    with Store(tmp_path / "data") as store:
        enrolment.enrol(store, reader, {"Obama": [sample("biden.jpg")]})
        with store.write() as connection:
            connection.execute(update(REFERENCE).values(model="another"))
        assert enrolment.extend(store, reader, "Obama", [sample("obama.jpg")]).extended
        assert enrolment.extend(store, reader, "Obama", [sample("biden.jpg")]).rejected


def test_pictures_of_as_many_people_enrol_nobody(tmp_path: Path, reader: PhotoReader) -> None:
    different = [sample(name) for name in ("obama.jpg", "biden.jpg", "single_face.jpg")]
    with Store(tmp_path / "data") as store:
        report = enrolment.enrol(store, reader, {"Somebody": different})
        assert len(report.rejected) == 3 and not report.enrolled and people.everybody(store) == []


def test_every_photograph_from_the_page_is_taken_or_named_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load(overrides={"storage": {"data_dir": own_data_dir(tmp_path / "data")}}, environment={})
    configuration.save(config, tmp_path / "config.json")

    def enrol(who: str, how: str, files: dict[str, bytes]) -> dict[str, Any]:
        folder = tmp_path / f"{how} {who}"
        folder.mkdir()
        for index, (name, content) in enumerate(files.items()):
            (folder / f"{index:03d} {name}").write_bytes(content)
        assert page_enrol.main([str(tmp_path / "config.json"), str(folder), who, "patient", "Kim", how]) == 0
        said = capsys.readouterr().out
        assert str(tmp_path) not in said
        done: dict[str, Any] = json.loads(said)
        return done

    picture, group = sample("obama.jpg").read_bytes(), sample("five_people.jpg").read_bytes()
    files = {"one.jfif": picture, "image": picture, "two.avif": b"none", "notes.txt": b"none", "group.jpg": group}
    done = enrol("Obama", "new", files)
    assert (done["pictures"], done["refused"]) == (2, None)
    left_out = {name: (key, why) for name, key, why in done["left_out"]}
    assert set(left_out) == {"two.avif", "notes.txt", "group.jpg"}
    assert left_out["notes.txt"] == (None, "it is no picture, or of a kind that cannot be read")
    assert left_out["group.jpg"][0] == "several_faces"
    assert enrol("OBAMA", "new", {"a.jpg": picture})["refused"] == "name_taken"
    alike = enrol("Barack", "new", {"a.jpg": picture})
    assert (alike["pictures"], alike["refused"], alike["other"], alike["left_out"]) == (0, "alike", "Obama", [])
    assert enrol("Barack", "alike", {"a.jpg": picture})["pictures"] == 1
    assert enrol("#1", "more", {"a.jpg": picture})["pictures"] == 1
    biden = sample("biden.jpg").read_bytes()
    other = enrol("#2", "more", {"b.jpg": biden})
    assert (other["pictures"], other["refused"]) == (0, "somebody_else")
    assert other["left_out"] == [["b.jpg", None, "it shows somebody else than Barack's pictures"]]
    assert enrol("Joe", "new", {"b.jpg": biden})["pictures"] == 1
    shutil.rmtree(tmp_path / "more #2")
    alike = enrol("#2", "more", {"b.jpg": biden})
    assert (alike["pictures"], alike["refused"], alike["other"]) == (0, "alike", "Joe")
    shutil.rmtree(tmp_path / "more #2")
    mixed = enrol("#2", "more", {"b.jpg": biden, "a.jpg": sample("obama3.jpg").read_bytes()})
    assert (mixed["pictures"], mixed["refused"], len(mixed["left_out"])) == (1, None, 1)
    assert enrol("#2", "more-alike", {"b.jpg": biden})["pictures"] == 1
    with Store(config.storage.place) as store:
        forgetting.forget(store, config, "Obama")
        assert enrol("#4", "more", {"a.jpg": picture})["refused"] == "not_enrolled"
        assert [(one.name, one.references) for one in people.everybody(store)] == [("Barack", 3), ("Joe", 1)]
    empty = enrol("Nobody", "new", {"notes.txt": b"none"})
    assert (empty["pictures"], len(empty["left_out"])) == (0, 1)


def test_a_picture_of_somebody_else_among_the_others_is_left_out(tmp_path: Path, reader: PhotoReader) -> None:
    mixed = [sample(name) for name in ("obama.jpg", "obama2.jpg", "biden.jpg", "obama3.jpg")]
    with Store(tmp_path / "data") as store:
        report = enrolment.enrol(store, reader, {"Obama": mixed})
        assert [path.name for path, _ in report.rejected] == ["biden.jpg"]
        assert report.enrolled[0].references == 3


def test_folders_that_cannot_be_used_are_explained(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, why in ((tmp_path / "nowhere", "no folder"), (empty, "no pictures"), (sample("obama.jpg"), "is a file")):
        with pytest.raises(PeopleError, match=why):
            enrolment.plan(path)


def test_a_folder_without_rights_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path)
    locked = folder / "Biden"
    real = os.scandir

    def scandir(path: Path) -> object:
        # For the system's administrator no folder is without rights: the system's answer is made here.
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(locked))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PeopleError, match=r"no right to read .*Biden"):
        enrolment.plan(folder)
