"""What one process shares between its calls: the engines, their lanes, the store."""

from __future__ import annotations

import asyncio
from typing import Any

from agent import __version__
from agent.affect import Listener, ListenerModels
from agent.call import Call, OnEvent
from agent.config import Config
from agent.engines.table import Engines, build, warm_up
from agent.lanes import Lanes
from agent.records import Consent, Session
from agent.session_log import SessionLog
from agent.store import Store


class Host:
    """Loads engines once and makes calls.

    Args:
        config: the process's configuration.
        store: where sessions go; None stores nothing (a dry run).
        engines: ready-made engines (tests); loaded from the configuration when None.
    """

    def __init__(self, config: Config, store: Store | None, engines: Engines | None = None) -> None:
        self.config = config
        self.store = store
        self.lanes = Lanes()
        self._engines = engines
        self._ready = engines is not None
        self._faces: ListenerModels | None = None

    async def start(self) -> None:
        """Load and warm the engines, off the event loop."""
        await asyncio.to_thread(self.load)

    def load(self) -> None:
        """Load and warm the engines, in this thread."""
        if self._engines is None:
            self._engines = build(self.config)
        if self.config.perception.enabled and self._faces is None:
            self._faces = ListenerModels.load(self.config)
        if not self._ready:
            warm_up(self._engines)
            self._ready = True

    async def close(self) -> None:
        """Stop the lanes; calls must be over."""
        await asyncio.to_thread(self.lanes.close)
        if self._faces is not None:
            self._faces.close()

    @property
    def engines(self) -> Engines:
        """The loaded engines."""
        if self._engines is None:
            raise RuntimeError("Host.start was not awaited")
        return self._engines

    @property
    def info(self) -> dict[str, Any]:
        """Ids of what speaks and what watches, for the page."""
        return {
            "policy": self.engines.responder.policy_id,
            "classifier": self._faces.classifier_id if self._faces else None,
        }

    def new_call(
        self,
        session: Session,
        on_event: OnEvent,
        *,
        paced: bool = True,
        seed: int | None = None,
    ) -> Call:
        """Make a call; its record is `session`, which this completes with policy and versions.

        Raises:
            StoreError: the store cannot be written.
        """
        session.policy_id = self.engines.responder.policy_id
        session.config_digest = self.config.digest()
        session.program_version = __version__
        # A person who only wants to talk is not watched either.
        watched = self._faces is not None and session.consent is not Consent.TALK_ONLY
        listener = Listener(self._faces, self.config) if watched and self._faces else None
        if self.store is not None:
            log = self.store.open_session(session)
        else:
            log = SessionLog(None, session.id, session.consent)
        return Call(
            self.config,
            self.engines,
            self.lanes,
            log,
            session=session,
            on_event=on_event,
            listener=listener,
            paced=paced,
            seed=seed,
        )
