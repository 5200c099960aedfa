"""Turns, windows and labels of one call on their way into the session log.

A turn joins the session at once, because the next reply needs it; its sentiment and prosody, and
the writing itself, happen on the store's lane. Labels are computed again as windows come in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from agent.config import Labels
from agent.engines.protocols import Pcm, Sentiment
from agent.errors import StoreError
from agent.labels import label_turn
from agent.lanes import Lanes
from agent.observed import NOBODY, Observer
from agent.records import AffectWindow, EndedHow, Session, Turn
from agent.session_log import SessionLog

RELABELLED = 3
"""Agent turns whose label can still change when a window closes."""

log_ = logging.getLogger("geli.call")


class TurnLog:
    """What a call puts on record. All methods are for the event loop's thread.

    Args:
        session: the record; grows.
        log: where it becomes durable.
        lanes: `store` is the one that is used.
        sentiment: scores every turn's words.
        rule: how windows become a turn's label.
        on_failure: called once, when the store cannot be written; let go of by `close`.
        observer: told of every write that failed.
    """

    def __init__(
        self,
        session: Session,
        log: SessionLog,
        lanes: Lanes,
        sentiment: Sentiment,
        rule: Labels,
        on_failure: Callable[[], None],
        observer: Observer = NOBODY,
    ) -> None:
        self._session = session
        self._log = log
        self._lanes = lanes
        self._sentiment = sentiment
        self._rule = rule
        self._observer = observer
        self._on_failure: Callable[[], None] | None = on_failure
        self._writing: set[asyncio.Future[Any]] = set()

    def add(self, turn: Turn, pcm: Pcm | None = None) -> None:
        """A new turn; `pcm` [samples] is the user's voice, for its prosody."""
        self._session.turns.append(turn)
        self._complete(turn, pcm, self._log.add_turn)

    def extend(self, turn: Turn, pcm: Pcm | None) -> None:
        """A turn that was added before says more now."""
        self._complete(turn, pcm, self._log.update_turn)

    def window(self, window: AffectWindow) -> None:
        """An affect window has closed."""
        self._session.windows.append(window)
        self._store(lambda: self._log.add_windows([window], now=False))
        self.relabel()

    def relabel(self) -> None:
        """Label the agent's last turns again, now that there is more to see."""
        turns, windows = self._session.turns, self._session.windows
        for turn in [t for t in turns if t.speaker == "agent"][-RELABELLED:]:
            label = label_turn(turn, turns, windows, self._rule)
            if (turn.li, turn.li_windows) != (label.li, list(label.windows)):
                turn.li, turn.li_coverage = label.li, label.coverage
                turn.li_windows, turn.li_rule = list(label.windows), label.rule
                self._store(partial(self._update, turn))

    async def close(self, how: EndedHow, at: datetime) -> None:
        """End the record, and wait until all of it was given to the store."""
        self.relabel()
        self._session.ended_how, self._session.ended_at = how, at
        self._store(lambda: self._log.end(how, at))
        if self._writing:
            await asyncio.wait(set(self._writing))
        self._on_failure = None

    def _complete(self, turn: Turn, pcm: Pcm | None, put: Callable[[Turn], None]) -> None:
        def complete_and_store() -> None:
            turn.sentiment = self._sentiment.score(turn.text)
            if pcm is not None and len(pcm):
                from perception.prosody import prosody

                turn.prosody = prosody(pcm)
            put(turn)

        self._store(complete_and_store)

    def _update(self, turn: Turn) -> None:
        self._log.update_turn(turn.model_copy(), now=False)

    def _store(self, work: Callable[[], None]) -> None:
        future = self._lanes.submit("store", work)
        self._writing.add(future)
        future.add_done_callback(self._stored)

    def _stored(self, future: asyncio.Future[None]) -> None:
        self._writing.discard(future)
        error = None if future.cancelled() else future.exception()
        if error is None:
            return
        log_.error("%s", error, extra={"session": self._session.id})
        self._observer.write_failed()
        if isinstance(error, StoreError) and self._on_failure is not None:
            tell, self._on_failure = self._on_failure, None
            tell()
