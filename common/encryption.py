"""Encryption at rest: what says who somebody is (embeddings, crops) is kept sealed with a key beside the data.

AES-256 in Galois/counter mode (NIST SP 800-38D): a sealed value is 12 random bytes (the nonce), then the ciphertext
with its tag. What a value is about is authenticated with it, so that sealed values cannot change places unnoticed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
import uuid
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
KEY_VARIABLE = "MIEN_KEY"
KEY_FILE = "mien.key"
_NONCE = 12


class KeyProblem(RuntimeError):
    """The key is missing, malformed or another one; the text says what to do."""


class Cipher:
    """Seals and opens values with one key of 32 bytes. Raises KeyProblem for another length."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise KeyProblem(f"a key has {KEY_BYTES} bytes, this one has {len(key)}")
        self._aes = AESGCM(key)

    def seal(self, value: bytes, about: str) -> bytes:
        """Return the sealed value; ``about`` (table and column) is needed again to open it."""
        nonce = os.urandom(_NONCE)
        return nonce + self._aes.encrypt(nonce, value, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """Return what was sealed. Raises KeyProblem: another key, another purpose, or damage."""
        try:
            return self._aes.decrypt(sealed[:_NONCE], sealed[_NONCE:], about.encode())
        except (InvalidTag, ValueError) as error:
            raise KeyProblem(f"a sealed value ({about}) cannot be opened: another key, or it is damaged") from error


def new_key() -> bytes:
    """Return a fresh key."""
    return AESGCM.generate_key(bit_length=8 * KEY_BYTES)


def written(key: bytes) -> str:
    """Return a key as it stands in the key file and in the environment: base64."""
    return base64.b64encode(key).decode("ascii")


def key_of(data_dir: Path, *, make: bool) -> bytes:
    """Return the key: from the environment variable ``MIEN_KEY``, else from ``mien.key`` in the data directory.

    Args:
        make: write a new key file when there is none. False where encrypted data exist already: a new key could not
            open them.

    Raises:
        KeyProblem: there is none, or it is not a key.
    """
    text = os.environ.get(KEY_VARIABLE)
    if text is not None:
        return parsed(text, f"the environment variable {KEY_VARIABLE}")
    path = data_dir / KEY_FILE
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        if not make:
            raise KeyProblem(
                f"the key file {path} is missing, and what the store holds cannot be read without it: put it back from "
                f"your copy, or give the key in {KEY_VARIABLE}. Nothing was changed."
            ) from None
        return _make(path)
    except OSError as error:
        raise KeyProblem(f"the key file {path} cannot be read: {error}") from error
    key = parsed(text, f"the key file {path}")
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        with contextlib.suppress(PermissionError):  # another's, who lets us read it: so they want it
            path.chmod(0o600)
    return key


def _make(path: Path) -> bytes:
    key = new_key()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(written(key) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # only one of two processes that start together makes the key; the other reads it
    except FileExistsError:
        return parsed(path.read_text(encoding="ascii"), f"the key file {path}")
    except OSError:  # a file system without hard links
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return key


def parsed(text: str, where: str) -> bytes:
    """Return a key written in base64 or hexadecimal. Raises KeyProblem, naming ``where`` it came from."""
    text = text.strip()
    try:
        key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyProblem(f"{where} holds no key: {KEY_BYTES} bytes in base64 or hexadecimal are expected")
    return key
