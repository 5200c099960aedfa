"""What one process shares between its calls: the engines, their lanes, the store."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from agent import __version__, collector
from agent.affect import Listener, ListenerModels
from agent.call import Call, OnEvent
from agent.config import Config
from agent.engines.protocols import Responder
from agent.engines.table import Engines, build, warm_up
from agent.lanes import Lanes
from agent.observed import NOBODY, Observer
from agent.records import Consent, Session
from agent.rollout import Rollout
from agent.session_log import SessionLog
from agent.store import Store
from agent.store_later import EVERY_S

log_ = logging.getLogger("geli.host")


class Host:
    """Loads engines once and makes calls.

    Args:
        config: the process's configuration.
        store: where sessions go; None stores nothing (a dry run).
        engines: ready-made engines (tests); loaded from the configuration when None.
        rollout: which learned policy speaks in which call; None: the configured responder in all.
    """

    def __init__(
        self,
        config: Config,
        store: Store | None,
        engines: Engines | None = None,
        rollout: Rollout | None = None,
    ) -> None:
        self.config = config
        self.store = store
        self.lanes = Lanes()
        self._engines = engines
        self._ready = engines is not None
        self._faces: ListenerModels | None = None
        self._rollout = rollout
        self._watching: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load and warm the engines, off the event loop; then watch for promoted policies."""
        await asyncio.to_thread(self.load)
        if self.store is not None and self._writing is None:
            self._writing = asyncio.create_task(self._write(self.store))
        if self._rollout is not None and not self._rollout.strict and self._watching is None:
            self._watching = asyncio.create_task(self._rollout.watch())

    async def _write(self, store: Store) -> None:
        """Bring what may wait a moment to the store, as long as there are calls."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.lanes.run("store", store.later.flush)
            except Exception:
                log_.exception("windows and labels wait for their calls' next turns")

    def load(self) -> None:
        """Load and warm the engines, in this thread."""
        built = self._engines is None
        if self._engines is None:
            learned = self._rollout.first() if self._rollout is not None else None
            # The base model is built with the rest, a learned policy was loaded before it.
            self._engines = build(self.config, learned) if learned else build(self.config)
        if self.config.perception.enabled and self._faces is None:
            self._faces = ListenerModels.load(self.config)
        if not self._ready:
            warm_up(self._engines)
            self._ready = True
        if self._rollout is not None:
            self._rollout.begin(self._engines.responder, self._speak_with)
        if built:
            collector.spare_loaded()

    def _speak_with(self, responder: Responder) -> None:
        self._engines = dataclasses.replace(self.engines, responder=responder)

    async def close(self) -> None:
        """Stop the lanes; calls must be over."""
        for task in (self._watching, self._writing):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self._rollout is not None:
            await asyncio.to_thread(self._rollout.close)
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

    def choose_responder(self) -> Responder:
        """Who speaks in a call that begins now. Waits where a policy that was just promoted is
        still being loaded, so a server asks on a thread, before `new_call`.

        Raises:
            GeliError: the promoted policy cannot be used, and nobody said to go on without it.
        """
        return self._rollout.choose() if self._rollout is not None else self.engines.responder

    def new_call(
        self,
        session: Session,
        on_event: OnEvent,
        *,
        paced: bool = True,
        seed: int | None = None,
        responder: Responder | None = None,
        secret: str | None = None,
        observer: Callable[[Session], Observer] | None = None,
    ) -> Call:
        """Make a call; its record is `session`, which this completes with policy and versions.

        Args:
            session: its record.
            on_event: takes messages for the page.
            paced: see `Call`.
            seed: see `Call`.
            responder: who speaks; default: `choose_responder`.
            secret: see `Store.open_session`.
            observer: makes who hears of the call, once its record is complete.

        Raises:
            StoreError: the store cannot be written.
            GeliError: see `choose_responder`.
        """
        responder = responder or self.choose_responder()
        engines = dataclasses.replace(self.engines, responder=responder)
        session.policy_id = responder.policy_id
        session.config_digest = self.config.digest()
        session.program_version = __version__
        # A person who only wants to talk is not watched either.
        watched = self._faces is not None and session.consent is not Consent.TALK_ONLY
        listener = Listener(self._faces, self.config) if watched and self._faces else None
        if self.store is not None:
            log = self.store.open_session(session, secret=secret)
        else:
            log = SessionLog(None, session.id, session.consent)
        return Call(
            self.config,
            engines,
            self.lanes,
            log,
            session=session,
            on_event=on_event,
            listener=listener,
            paced=paced,
            seed=seed,
            observer=NOBODY if observer is None else observer(session),
        )
