"""``python launch.py keys``: make, list, rotate, revoke and import keys."""

from __future__ import annotations

import argparse
import sys
import time

from common import options
from common.config import load
from common.keys import ROLES, SERVER, KeyRing, KeysError
from common.transport import key_pair


def main(arguments: argparse.Namespace) -> int:
    """Do what the command line says; return the exit code (2: something to put right first)."""
    ring = KeyRing(load(arguments.config, overrides=options.overrides_of(arguments)).keys_dir, key_pair)
    try:
        return _do(ring, arguments)
    except KeysError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or ring.folder} cannot be used: {error.strerror or error}", file=sys.stderr)
    return 2


def _do(ring: KeyRing, arguments: argparse.Namespace) -> int:
    match arguments.verb:
        case "make":
            roles = tuple(part.strip() for part in arguments.role.split(",") if part.strip())
            had_server = ring.listens()
            key, path = ring.make(arguments.name, roles)
            if not had_server:
                print(f"this machine listens now: the server's key is in {ring.folder}")
            if key.name != SERVER:
                print(f"made {key.name} for {', '.join(key.roles)}: {path}")
                print(f"copy it to its machine and type there: python launch.py keys import {path.name}")
        case "rotate":
            key, path = ring.rotate(arguments.name)
            if key.name == SERVER:
                print("the server has a new key; nobody gets in by the old one")
                print(f"copy the files NAME.key in {ring.folder} to their machines again, and import them there")
            else:
                print(f"{key.name} has a new key, the old one opens nothing any more: {path}")
                print(f"copy it to its machine and type there: python launch.py keys import {path.name}")
        case "revoke":
            ring.revoke(arguments.name)
            print(f"{arguments.name} opens nothing any more; what it had open ends within a second")
        case "import":
            key = ring.install(arguments.file)
            print(f"this machine is {key.name} now, for {', '.join(key.roles)}")
            print(f"the file {arguments.file} is not needed any more: delete it")
        case _:
            _list(ring)
    return 0


def _list(ring: KeyRing) -> None:
    own = ring.own()
    if own is None:
        print(f"no keys in {ring.folder}: only this machine can connect; 'keys make NAME --role ROLE' begins")
        return
    print(f"this machine: {own.name}, for {', '.join(own.roles)} ({ring.folder})")
    for entry in ring.allowed().entries:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.made_at))
        state = (
            ""
            if entry.revoked_at is None
            else time.strftime(", revoked %Y-%m-%d %H:%M", time.localtime(entry.revoked_at))
        )
        opens = dict.fromkeys(channel for role in entry.roles for channel in ROLES.get(role, ()))
        print(f"{entry.name}: {', '.join(entry.roles)} ({', '.join(opens)}), made {made}{state}  {entry.public[:8]}…")
