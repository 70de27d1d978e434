"""For whoever has lost the password of the page: ``python -m common.page.reset [NAME] [--data-dir DIR]``.

Whoever may read the store may do this; it gives a user a new one-time password, prints it and ends their
sessions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.config import ConfigError, load
from common.page import access
from common.page.access import AccessError
from common.people import name_key
from common.store import Store, StoreError


def main(argv: list[str] | None = None) -> int:
    """Make the password and print it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m common.page.reset", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", nargs="?", default=access.FIRST_USER, help="of the user")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, a TOML file")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where Mien keeps what lasts")
    given = parser.parse_args(argv)
    try:
        overrides = {"storage": {"data_dir": str(given.data_dir.absolute())}} if given.data_dir else None
        with Store(load(given.config, overrides=overrides).storage.place, who="page reset") as store:
            users = access.users(store)
            found = [user for user in users if name_key(user.name) == name_key(given.name)]
            if not found:
                there = ", ".join(user.name for user in users) or "none yet: start Mien, which makes the first one"
                raise AccessError(f"there is no user {given.name!r} of the page; there are: {there}")
            print(f"one-time password of {found[0].name}: {access.new_password(store, found[0].id)}")
    except (AccessError, ConfigError, StoreError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
