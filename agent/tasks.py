"""Background tasks that are kept until they are done, and whose failures are never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """The tasks of one owner, all on one event loop.

    Args:
        on_error: told of every task that raised, on the event loop's thread.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._running: set[asyncio.Task[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._running)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the caller."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    async def finished(self) -> None:
        """Wait until all tasks that run now are done."""
        if self._running:
            await asyncio.wait(set(self._running))

    async def close(self) -> None:
        """Wait until all tasks are done, those they spawn too; then let go of the owner, so that
        no cycle of references keeps it."""
        while self._running:
            await self.finished()
        self._on_error = _nobody

    async def cancel(self) -> None:
        """Cancel all tasks but the caller's own, and wait for their end."""
        current = asyncio.current_task()
        tasks = [task for task in self._running if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)


def _nobody(error: BaseException) -> None:
    raise RuntimeError("a task was spawned after the end of its owner") from error
