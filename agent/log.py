"""Structured logs on stderr: one line an event, as text or JSON.

What a line may hold: session ids, counts, times, error names. Never what anybody said, no face, no
secret, no token. Libraries that log addresses, offers or request lines are kept at warnings.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from agent.config import Logging

NO_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """`{"time", "level", "logger", "message", ...extra}`, one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Text(logging.Formatter):
    """`time level logger: message key=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        head, newline, rest = line.partition("\n")  # a traceback stays below its line
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        return head + fields + newline + rest


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
