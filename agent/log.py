"""Structured logs on stderr: one line an event, as text or JSON.

What a line may hold: session ids, counts, times, error names. Never what anybody said, no face, no
secret, no token. Libraries that log addresses, offers or request lines are kept at warnings.

Tracebacks keep the frames and the types, and the message only of our own errors and the system's:
a library's message may quote what it was given (SQLAlchemy's shows the row, words and all).
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO

from agent.config import Logging
from agent.errors import GeliError

NO_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """`{"time", "level", "logger", "message", ...extra}`, one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            **_fields(record),
        }
        if (error := _error(record)) is not None:
            line["exception"] = trace(error)
        return json.dumps(line, ensure_ascii=False, default=str)


class Text(logging.Formatter):
    """`time level logger: message key=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        record.message = _message(record)
        record.asctime = self.formatTime(record, self.datefmt)
        head, newline, rest = self.formatMessage(record).partition("\n")
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        error = _error(record)
        below = "" if error is None else "\n" + trace(error)  # never `record.exc_text`: not ours
        return head + fields + newline + rest + below


def trace(error: BaseException) -> str:
    """The traceback of `error` and of what led to it, without messages that may quote a person."""
    parts: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        frames = "".join(traceback.format_tb(link.__traceback__))
        inner = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        within = "".join(f"\n{trace(one)}" for one in inner)
        parts.append(f"Traceback (most recent call last):\n{frames}{_named(link)}{within}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\nwhich led to\n".join(reversed(parts))


def _named(error: BaseException) -> str:
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    ours = isinstance(error, GeliError)
    system = isinstance(error, OSError) and error.errno is not None  # number, reason, file
    return f"{name}: {error}" if ours or system else name


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    # asyncio goes on with the repr of a task, which holds its exception's message.
    return message.partition("\n")[0] if record.name == "asyncio" else message


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What the caller handed in as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in NO_FIELDS}


def configure(settings: Logging, stream: TextIO | None = None) -> None:
    """Set up the process's logging; a second call replaces the first.

    Args:
        settings: level and format.
        stream: where lines go; default: stderr.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    if settings.format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(Text("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for old in [h for h in root.handlers if getattr(h, "geli", False)]:
        root.removeHandler(old)
    handler.geli = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # libraries: their lower lines carry addresses and offers
    logging.getLogger("geli").setLevel(settings.level)


def configure_terminal(settings: Logging) -> None:
    """As `configure`, for commands whose terminal belongs to the person: warnings unless DEBUG."""
    if settings.level == "INFO":
        settings = settings.model_copy(update={"level": "WARNING"})
    configure(settings)
