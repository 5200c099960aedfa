"""One call, as the worker that holds it knows it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agent.call import Call
from agent.records import Consent, EndedHow
from agent.session_log import SessionLog
from agent.web.outbox import Outbox
from agent.web.rtc import Peer


@dataclass(slots=True, eq=False)
class Entry:
    """One call and what the server knows about it."""

    id: str
    secret: str
    consent: Consent
    log: SessionLog
    call: Call | None
    """None once the call is over."""
    outbox: Outbox
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """The call is over and its log was written as far as possible."""
    peer: Peer | None = None
    started: bool = False
    ended_how: EndedHow | None = None
    """Set as soon as the end is decided."""
    ended_at: float = 0.0  # event loop's clock
    rated: bool = False
    deleted: bool = False
    to_remove: bool = False
    """Deleted, but its rows are still in the store."""
    timer: asyncio.TimerHandle | None = None
    """Connecting or away: when it is over. Live: None."""
    limit: asyncio.TimerHandle | None = None
    """When the whole call is over."""
    negotiating: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def state(self) -> str:
        """`live` (or about to be), `away` or `ended`."""
        if self.ended_how is not None:
            return "ended"
        away = self.started and (self.peer is None or not self.peer.connected)
        return "away" if away else "live"

    @property
    def can_rate(self) -> bool:
        """Whether there is something the rating could be stored with."""
        return self.consent is not Consent.TALK_ONLY and not self.deleted
