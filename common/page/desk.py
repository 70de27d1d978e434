"""The page's way to everything else: the store in threads of its own, and requests to stages through its owner.

What takes a disk's or a stage's time is awaited here, so that the page never stands still.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from common import config as configuration
from common.child import environment
from common.control import Argument, NoAnswer
from common.ledger import Ledger
from common.messages import Reply
from common.settings import Config
from common.store import Store

P = ParamSpec("P")
T = TypeVar("T")

_CHILD_S = 120.0


class DeskError(RuntimeError):
    """What was asked could not be done; the text is for the person who asked.

    Attributes:
        result: what else a stage has said.
    """

    def __init__(self, why: str, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(why)
        self.result = result or {}


@dataclass(frozen=True, slots=True)
class Wish:
    """A request to a stage on its way to whoever owns the bus's sockets."""

    stage: str
    do: str
    timeout_s: float
    args: dict[str, Argument]
    answer: asyncio.Future[Reply | NoAnswer]


class Desk:
    """Does the page's errands. ``wishes`` is emptied by the stage's own loop."""

    def __init__(self, config: Config, who: str) -> None:
        self.config = config
        self.wishes: queue.SimpleQueue[Wish] = queue.SimpleQueue()
        self._who = who
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="slow")
        self._store: Store | None = None
        self._ledger: Ledger | None = None

    def opened(self) -> Store:
        """Return the store; for the thread that uses it. Raises StoreError: it cannot be used."""
        if self._store is None:
            self._store = Store(self.config.storage.place, who=self._who)
        return self._store

    async def store(
        self, who: str | None, function: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a function with the store, one at a time; ``who`` stands in the audit log for what it does."""

        def call() -> T:
            store = self.opened()
            store.who = f"{who} on the page"[:128] if who else self._who
            return function(store, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def slowly(
        self, who: str, function: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a function that takes seconds with a store and a thread of its own: nobody else waits for it."""

        def call() -> T:
            with Store(self.config.storage.place, who=self._who) as store:
                store.who = f"{who} on the page"[:128]
                return function(store, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._slow, call)

    async def ledger(self, function: Callable[Concatenate[Ledger, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function with the ledger: episodes, history and notes."""

        def call() -> T:
            if self._ledger is None:
                self._ledger = Ledger(self.config.storage.place)
            return function(self._ledger, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def audit(self, who: str, did: str, about: str) -> None:
        """Write a line into the audit log."""

        def note(store: Store) -> None:
            with store.write() as connection:
                store.audit(connection, did, about)

        await self.store(who, note)

    async def ask(self, stage: str, do: str, *, timeout_s: float = 5.0, **args: Argument) -> dict[str, Any]:
        """Ask a stage to do something and return its answer. Raises DeskError: it did not, and why."""
        answer: asyncio.Future[Reply | NoAnswer] = asyncio.get_running_loop().create_future()
        self.wishes.put(Wish(stage, do, timeout_s, args, answer))
        reply = await answer
        if isinstance(reply, NoAnswer):
            raise DeskError(str(reply))
        if not reply.ok:
            raise DeskError(reply.error or "it was not done, and no reason came", reply.result)
        return dict(reply.result)

    async def child(self, module: str, *arguments: str) -> Any:
        """Run a module of Mien that needs heavy libraries in a process of its own; return the JSON that it prints.

        Raises:
            DeskError: it said why it could not, took too long, or crashed.
        """
        command = [sys.executable, "-m", module, *arguments]
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment(self.config.storage.data_dir),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, errors = await asyncio.wait_for(process.communicate(), _CHILD_S)
        except TimeoutError as error:
            raise DeskError(f"it took longer than {_CHILD_S:.0f} s and was given up") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            said = errors.decode("utf-8", "replace").strip().splitlines()
            raise DeskError(said[-1] if said else f"it ended with exit code {process.returncode}")
        return json.loads(out.decode("utf-8", "replace").strip().splitlines()[-1])

    def saved_config(self, folder: Path) -> Path:
        """Write the configuration for a child; return the file."""
        file = folder / "config.json"
        configuration.save(self.config, file)
        return file

    def close(self) -> None:
        """End the threads, after what they have been given to do."""

        def close() -> None:
            for opened in (self._store, self._ledger):
                if opened is not None:
                    opened.close()

        self._thread.submit(close)
        for thread in (self._thread, self._slow):
            thread.shutdown(wait=True)
