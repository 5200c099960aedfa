"""What a session's log writes, as values: they can wait in memory, or on disk, and be done later.

Each can be done twice to the same end, and knows how to become JSON and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection

from agent.records import AffectWindow, EndedHow, Turn
from agent.store_rows import close_session, count_call, put_turns, put_windows, rate_session


@dataclass(slots=True, frozen=True)
class PutTurn:
    """A turn that ended, or a turn anew."""

    turn: Turn

    def apply(self, connection: Connection, session_id: str) -> None:
        """Within the caller's transaction."""
        put_turns(connection, session_id, [self.turn])

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {"do": "turn", "turn": self.turn.model_dump(mode="json")}


@dataclass(slots=True, frozen=True)
class PutWindows:
    """Affect windows that closed."""

    windows: Sequence[AffectWindow]

    def apply(self, connection: Connection, session_id: str) -> None:
        """Within the caller's transaction."""
        put_windows(connection, session_id, self.windows)

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {"do": "windows", "windows": [w.model_dump(mode="json") for w in self.windows]}


@dataclass(slots=True, frozen=True)
class Rate:
    """The person's rating."""

    value: float
    source: str
    comment: str | None
    at: datetime

    def apply(self, connection: Connection, session_id: str) -> None:
        """Within the caller's transaction."""
        rate_session(connection, session_id, self.value, self.source, self.comment, self.at)

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "do": "rate",
            "value": self.value,
            "source": self.source,
            "comment": self.comment,
            "at": self.at.isoformat(),
        }


@dataclass(slots=True, frozen=True)
class End:
    """The session is over."""

    how: EndedHow
    at: datetime

    def apply(self, connection: Connection, session_id: str) -> None:
        """Within the caller's transaction."""
        close_session(connection, session_id, self.how, self.at)

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {"do": "end", "how": self.how.value, "at": self.at.isoformat()}


@dataclass(slots=True, frozen=True)
class Count:
    """One more call of which nothing is kept. It never waits on disk, so it is no JSON."""

    day: date
    what: str

    def apply(self, connection: Connection, session_id: str) -> None:
        """Within the caller's transaction."""
        count_call(connection, self.day, self.what)


Write = PutTurn | PutWindows | Rate | End
"""What belongs to a stored session."""


def load(data: dict[str, Any]) -> Write:
    """What `dump` gave.

    Raises:
        ValueError: something else (KeyError and pydantic's ValidationError among them).
    """
    try:
        match data["do"]:
            case "turn":
                return PutTurn(Turn.model_validate(data["turn"]))
            case "windows":
                return PutWindows([AffectWindow.model_validate(w) for w in data["windows"]])
            case "rate":
                at = datetime.fromisoformat(data["at"])
                return Rate(data["value"], data["source"], data["comment"], at)
            case "end":
                return End(EndedHow(data["how"]), datetime.fromisoformat(data["at"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a write: {type(error).__name__}") from None
    raise ValueError("not a write")
