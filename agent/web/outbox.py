"""Messages for the page, kept in order until a data channel takes them.

A queue outlives its channel: what is said while the page reloads is shown when it is back.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

CAP = 200
"""Messages kept for a page that is not there."""
HIGH_WATER_BYTES = 64 * 1024
"""What may wait in the channel itself before messages stay here."""

Message = dict[str, Any]


class Channel(Protocol):
    """The part of aiortc's data channel that is used."""

    bufferedAmountLowThreshold: int

    @property
    def readyState(self) -> str: ...  # noqa: N802 (W3C's name)

    @property
    def bufferedAmount(self) -> int: ...  # noqa: N802

    def send(self, data: str) -> None: ...

    def on(self, event: str, f: Callable[[], None]) -> Any: ...


class Outbox:
    """A bounded queue of messages in front of a data channel that comes and goes."""

    def __init__(self, cap: int = CAP) -> None:
        self._cap = cap
        self._queue: deque[Message] = deque()
        self._channel: Channel | None = None
        self._state: Message | None = None  # the latest "state", for a page that reloads
        self.dropped = 0
        """Messages that were never sent because the page was away too long."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def drained(self) -> bool:
        """Nothing waits here nor in the channel."""
        return not self._queue and (self._channel is None or not self._channel.bufferedAmount)

    def put(self, message: Message) -> None:
        """Send now, or as soon as a channel can take it."""
        if message.get("type") == "state":
            self._state = message
        self._queue.append(message)
        self._pump()
        if len(self._queue) > self._cap:
            self._drop_one()

    def attach(self, channel: Channel) -> None:
        """`channel` is open: send what waits, beginning with the state the call is in."""
        self._channel = channel
        channel.bufferedAmountLowThreshold = HIGH_WATER_BYTES // 2
        channel.on("bufferedamountlow", self._pump)
        if self._state is not None:
            self._queue.appendleft(self._state)
        self._pump()

    def detach(self, channel: Channel) -> None:
        """`channel` is gone: keep what comes, unless a newer one has taken over."""
        if self._channel is channel:
            self._channel = None

    def _pump(self) -> None:
        channel = self._channel
        while (
            self._queue
            and channel is not None
            and channel.readyState == "open"
            and channel.bufferedAmount < HIGH_WATER_BYTES
        ):
            channel.send(json.dumps(self._queue.popleft(), ensure_ascii=False))

    def _drop_one(self) -> None:
        """Make room: a partial caption if there is one (a later one says more), else the oldest."""
        partial = next((m for m in self._queue if _is_partial(m)), None)
        self._queue.remove(partial if partial is not None else self._queue[0])
        self.dropped += 1


def _is_partial(message: Message) -> bool:
    return message.get("type") == "caption" and not message.get("final")
