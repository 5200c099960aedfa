"""One single-thread executor per engine: no model runs on the event loop or twice at once.

The policy is the exception: every call has a lane of its own for it, so that no caller waits for
the end of another one's reply. A policy that runs here steps all live replies together
(agent/engines/batching.py), one that runs elsewhere answers several requests at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

ROLES = (
    "voice_activity",
    "end_of_turn",
    "recognizer",
    "speaker",
    "listener",
    "store",
)


class Lane(ThreadPoolExecutor):
    """One thread, and how long what is queued waits for it.

    Args:
        role: names the thread.
        waited: told how many seconds each piece of work waited, in the lane's thread.
    """

    def __init__(self, role: str, waited: Callable[[float], None]) -> None:
        super().__init__(1, thread_name_prefix=f"geli-{role}")
        self._waited = waited
        self._since: dict[int, float] = {}  # work that waits, the oldest first
        self._count = 0
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue `fn` behind what is there."""
        with self._lock:
            self._count += 1
            number = self._count
            self._since[number] = time.perf_counter()

        def begin() -> T:
            since = self._begun(number)
            if since is not None:
                self._waited(time.perf_counter() - since)
            return fn(*args, **kwargs)

        try:
            future = super().submit(begin)
        except RuntimeError:  # shut down
            self._begun(number)
            raise
        future.add_done_callback(lambda _: self._begun(number))  # one that was cancelled
        return future

    def _begun(self, number: int) -> float | None:
        with self._lock:
            return self._since.pop(number, None)

    @property
    def waiting(self) -> int:
        """How many pieces of work wait."""
        return len(self._since)

    @property
    def oldest_wait_s(self) -> float:
        """How long the oldest of them has waited; 0.0: none waits."""
        with self._lock:
            since = next(iter(self._since.values()), None)
        return 0.0 if since is None else time.perf_counter() - since


class Lanes:
    """The executors of one process, by role; shared by all of its calls."""

    def __init__(self) -> None:
        self.on_wait: Callable[[str, float], None] | None = None
        """Told the role and the seconds that its work waited, in the lane's thread."""
        self._executors = {role: Lane(role, partial(self._waited, role)) for role in ROLES}

    def _waited(self, role: str, seconds: float) -> None:
        if (tell := self.on_wait) is not None:
            tell(role, seconds)

    @property
    def roles(self) -> list[str]:
        """The lanes that there are."""
        return list(self._executors)

    def waiting(self, role: str) -> int:
        """How many pieces of work wait for a lane."""
        return self._executors[role].waiting

    def oldest_wait_s(self, role: str) -> float:
        """How long the oldest of them has waited; 0.0 where there is no such lane."""
        lane = self._executors.get(role)
        return lane.oldest_wait_s if lane is not None else 0.0

    def __getitem__(self, role: str) -> ThreadPoolExecutor:
        return self._executors[role]

    def for_policy(self) -> ThreadPoolExecutor:
        """A new lane for the policy of one call; the call shuts it down when it ends."""
        return Lane("policy", partial(self._waited, "policy"))

    def submit(self, role: str, work: Callable[[], T]) -> asyncio.Future[T]:
        """Queue `work` behind what its lane already has."""
        return asyncio.get_running_loop().run_in_executor(self._executors[role], work)

    async def run(self, role: str, work: Callable[[], T]) -> T:
        """Run `work` on its lane and wait for it."""
        return await self.submit(role, work)

    def close(self) -> None:
        """Let running work finish, drop what waits."""
        for executor in self._executors.values():
            executor.shutdown(wait=True, cancel_futures=True)
