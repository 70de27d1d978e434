"""What ``python launch.py store …`` does: a store moves from a file to a server."""

from __future__ import annotations

import argparse
import sys

from common import options
from common.config import load
from common.place import checked, shown
from common.rundir import attached, is_running
from common.store import Store


def main(arguments: argparse.Namespace) -> int:
    """Do what the command line says; return the exit code (2: it could not be done)."""
    try:
        from common import moving
        from common.moving import MoveError
    except ImportError as error:  # the server's driver is not installed
        print(error, file=sys.stderr)
        return 2
    config = load(arguments.config, overrides=options.overrides_of(arguments))
    place = config.storage.place
    try:
        url = checked(arguments.to)
        if is_running(config) and attached(config).storage.data_dir == place.data_dir:
            raise MoveError(
                "a Mien is running on this store: end it first, what it noticed meanwhile would be left behind"
            )
        print(f"moving {place.file} to {shown(url)} …")
        total = moving.move(place, url, who="store move", tell=_tell)
        with Store(type(place)(place.data_dir, url), who="store move") as store, store.write() as connection:
            store.audit(connection, "moved", f"{total} rows from {place.file.name}")
    except (MoveError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{total} rows have arrived and were compared. Now set, for every machine and with the same key "
        f'(mien.key, or MIEN_KEY):\n\n[storage]\nurl = "{shown(url)}"\n\n'
        f"{place.file} is as it was; delete it when all is well: nobody is forgotten in it any more."
    )
    return 0


def _tell(table: str, rows: int) -> None:
    if rows:
        print(f"  {table}: {rows}")
