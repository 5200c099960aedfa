"""One single-thread executor per engine: no model runs on the event loop or twice at once.

The policy is the exception: every call has a lane of its own for it, so that no caller waits for
the end of another one's reply. A policy that runs here steps all live replies together
(agent/engines/batching.py), one that runs elsewhere answers several requests at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

ROLES = (
    "voice_activity",
    "end_of_turn",
    "recognizer",
    "speaker",
    "listener",
    "store",
)


class Lanes:
    """The executors of one process, by role; shared by all of its calls."""

    def __init__(self) -> None:
        self._executors = {
            role: ThreadPoolExecutor(1, thread_name_prefix=f"geli-{role}") for role in ROLES
        }

    def __getitem__(self, role: str) -> ThreadPoolExecutor:
        return self._executors[role]

    def for_policy(self) -> ThreadPoolExecutor:
        """A new lane for the policy of one call; the call shuts it down when it ends."""
        return ThreadPoolExecutor(1, thread_name_prefix="geli-policy")

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
