"""Live captions in a terminal: one line a turn, rewritten while it grows."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

NAMES = {"user": "you", "agent": "geli"}


class Captions:
    """Takes the call's messages and prints them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def on_event(self, event: dict[str, Any]) -> None:
        """One message of the call (see agent/call.py)."""
        if event["type"] == "caption":
            self._caption(event)
        elif event["type"] == "notice":
            self._console.print(f"[yellow]{event['text']}[/]")

    def _caption(self, event: dict[str, Any]) -> None:
        name = NAMES[event["speaker"]]
        line = Text.assemble((f"{name:>5}  ", "bold cyan" if name == "geli" else "bold green"))
        line.append(event["text"], style="" if event["final"] else "dim")
        if event.get("interrupted"):
            line.append(" —", style="dim")
        if not event["final"]:
            if self._live is None:
                self._live = Live(console=self._console, transient=True, auto_refresh=False)
                self._live.start()
            self._live.update(line, refresh=True)
            return
        if self._live is not None:
            self._live.stop()
            self._live = None
        if event["text"]:
            self._console.print(line)
