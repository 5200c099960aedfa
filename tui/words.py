"""Numbers and times as the screens write them. A dash stands for what is not known."""

from __future__ import annotations

from datetime import datetime

NONE = "–"


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return NONE if value is None else f"{value:.0%}"


def number(value: float | None, form: str = "g") -> str:
    """A number in that format."""
    return NONE if value is None else format(value, form)


def day_and_time(at: datetime, *, year: bool = False) -> str:
    """Local date and time to the minute."""
    return f"{at.astimezone():{'%Y-%m-%d %H:%M' if year else '%m-%d %H:%M'}}"


def counted(n: int, noun: str) -> str:
    """A number with its noun."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def plain(text: str) -> str:
    """Text without control characters, on one line: what was said must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def short_policy(policy_id: str | None) -> str:
    """A policy as a narrow column shows it: the end of its adapter's id, or the base's name."""
    if policy_id is None:
        return NONE
    base, _, adapter = policy_id.partition("+")
    return f"p-…{adapter[-6:]}" if adapter else base
