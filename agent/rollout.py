"""Which policy speaks in the next call, while promotions come and go.

A call keeps the responder it began with. A new one is loaded on one thread of its own, before it is
needed where somebody watches the registry; then calls begin with it, and the old one is let go with
its last call. In memory are the promoted policy, the candidate where it has a share, and what calls
in progress still speak with.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from pathlib import Path

from agent import collector, policies
from agent.config import Config
from agent.engines.protocols import Responder
from agent.errors import EngineError, GeliError, PolicyError
from agent.policies import State

POLL_S = 2.0
"""Between two looks at the registry."""
LONGEST_WAIT_S = 10.0
"""A served call waits this long for a policy that is being loaded (the page gives up after 15 s),
then begins with the one that speaks already."""

Open = Callable[[Path | None], Responder]
"""Loads the responder with an adapter; None: the base model."""

log_ = logging.getLogger("geli.policy")


class Rollout:
    """The responders of one process that follows the registry. Thread-safe.

    Args:
        registry: see agent/policies.py.
        share: of calls that the candidate holds.
        open_responder: loads one.
        strict: a policy that cannot be loaded is an error (one call, one process); else (a served
            page) the one that spoke before goes on, with a warning.
        poll_s: seconds between two looks at the registry.
        longest_wait_s: for a call that is served.
        rng: draws the candidate's calls.
    """

    def __init__(
        self,
        registry: Path,
        share: float,
        open_responder: Open,
        *,
        strict: bool,
        poll_s: float = POLL_S,
        longest_wait_s: float = LONGEST_WAIT_S,
        rng: random.Random | None = None,
    ) -> None:
        self._registry = registry
        self._share = share
        self._open = open_responder
        self.strict = strict
        self._poll_s = poll_s
        self._longest_wait_s = longest_wait_s
        self._rng = rng or random.Random()  # noqa: S311 (no secret)
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="geli-policy")
        self._loaded: dict[str | None, Responder] = {}  # replaced, never changed
        self._speaking: Responder | None = None
        self._speaking_key: str | None = None
        self._on_change: Callable[[Responder], None] = _nobody
        # What follows belongs to the lane.
        self._state: State | None = None
        self._refused: set[str | None] = set()
        self._said = ""

    @classmethod
    def following(cls, config: Config, *, strict: bool) -> Rollout | None:
        """The rollout that a configuration asks for; None where it names its policy itself.

        Raises:
            StoreError: the data directory cannot be made.
        """
        from agent.engines.table import open_responder
        from agent.store_engine import data_dir

        speaks = config.responder
        learned = speaks.engine == "transformers" or speaks.adapters != "none"
        if not config.rollout.follow or not learned or speaks.adapter is not None:
            return None
        return cls(
            policies.registry_of(data_dir()),
            config.rollout.candidate_share,
            lambda adapter: open_responder(config, adapter),
            strict=strict,
        )

    # --- the process's start ------------------------------------------------------------------

    def first(self) -> Responder | None:
        """The promoted policy, loaded; None where the base model is to speak.

        Raises:
            GeliError: strict, and it cannot be loaded.
        """
        return self._on_lane(False).result()

    def begin(self, speaking: Responder, on_change: Callable[[Responder], None]) -> None:
        """Take over what speaks now, and load what else is needed.

        Args:
            speaking: what `first` gave, else the base model.
            on_change: told of each responder that new calls speak with from now on, on a thread of
                the rollout's.

        Raises:
            GeliError: strict, and the candidate cannot be loaded.
        """
        if self._speaking is None:
            self._speaking = speaking
            self._loaded = self._loaded | {None: speaking}
        self._on_change = on_change
        for candidate in (False, True):
            self._on_lane(candidate).result()

    # --- calls --------------------------------------------------------------------------------

    def choose(self) -> Responder:
        """Who speaks in a call that begins now; waits while it is loaded. After `begin`.

        Raises:
            GeliError: strict, and it cannot be loaded.
        """
        assert self._speaking is not None
        drawn = False
        with contextlib.suppress(PolicyError):  # the lane says so, or raises it
            now = policies.state(self._registry)
            drawn = now.draws_candidate(self._share, self._rng)
            ready = self._loaded.get(now.candidate if drawn else now.promoted)
            if ready is not None:
                return ready
        loading = self._on_lane(drawn)
        try:
            return loading.result(None if self.strict else self._longest_wait_s) or self._speaking
        except TooSlow:
            log_.warning("a call did not wait longer for a policy that is being loaded")
            return self._speaking

    async def watch(self) -> None:
        """Load what is promoted while calls go on; runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._poll_s)
            # Two jobs, so that a call that waits for the promoted one comes before the candidate.
            for candidate in (False, True):
                await asyncio.wrap_future(self._on_lane(candidate))

    def close(self) -> None:
        """Wait for a load in progress; calls must be over."""
        self._lane.shutdown(wait=True, cancel_futures=True)

    # --- the lane -----------------------------------------------------------------------------

    def _on_lane(self, candidate: bool) -> Future[Responder | None]:
        return self._lane.submit(self._get, candidate)

    def _get(self, candidate: bool) -> Responder | None:
        """The promoted policy, or the candidate, as the registry says now; loads it if need be.
        None: the process starts, and the base model is to speak."""
        try:
            now = policies.state(self._registry)
        except PolicyError as error:
            self._state = None
            self._go_on(error)
            return self._speaking
        if now != self._state:
            self._state, self._refused, self._said = now, set(), ""  # promoted anew: try again
        wanted = now.promoted
        if candidate and now.candidate is not None and self._share > 0:
            wanted = now.candidate
        starts = wanted is None and self._speaking is None
        loads = wanted not in self._loaded and wanted not in self._refused and not starts
        if loads:
            self._load(wanted)
        self._settle(now)
        if loads:
            _give_back_memory()
        return self._loaded.get(wanted) or self._speaking

    def _load(self, wanted: str | None) -> None:
        try:
            with collector.paused():
                opened = self._open(policies.folder(self._registry, wanted))
        except EngineError as error:  # a server that is down: it is asked again
            self._go_on(error)
        except GeliError as error:
            self._refused.add(wanted)
            self._go_on(error)
        except Exception:
            # Whatever a library makes of an adapter, a served page goes on speaking.
            if self.strict:
                raise
            self._refused.add(wanted)
            log_.exception("policy %s cannot be loaded; the one that spoke goes on", wanted)
        else:
            self._loaded = self._loaded | {wanted: opened}

    def _settle(self, now: State) -> None:
        """Let new calls begin with what is promoted, and let go of what nobody will ask for."""
        speaking = self._loaded.get(now.promoted)
        if speaking is not None and speaking is not self._speaking:
            log_.info("new calls speak with %s", speaking.policy_id)
            self._speaking, self._speaking_key = speaking, now.promoted
            self._on_change(speaking)
        kept = {now.promoted, self._speaking_key}
        if self._share > 0:
            kept.add(now.candidate)
        self._loaded = {key: loaded for key, loaded in self._loaded.items() if key in kept}

    def _go_on(self, error: GeliError) -> None:
        """Speak as before; said once."""
        if self.strict:
            raise error
        if str(error) != self._said:
            self._said = str(error)
            goes_on = self._speaking.policy_id if self._speaking else "the base model"
            log_.warning("%s; %s speaks", error, goes_on)


def _give_back_memory() -> None:
    """Loading passes through several times a policy's size, which glibc would keep: 3.1 GB instead
    of 0.8 after six promotions on SmolLM2-135M."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _nobody(responder: Responder) -> None:
    """Before `begin` nobody listens."""
