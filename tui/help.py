"""The help of a screen: its keys and signs."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen

EVERYWHERE = ("scroll_", "page_left", "page_right", "app.focus_", "screen.", "cursor_")
"""Actions of the toolkit that need no telling."""


def help_of(screen: Screen[Any]) -> str:
    """Every key that works there, also those that the last lines do not show, and the signs."""
    lines = ["Keys", ""]
    told = set()
    bindings = [active.binding for active in screen.active_bindings.values()]
    for binding in sorted(bindings, key=lambda b: not b.show):
        if binding.action in told or not binding.description or binding.system:
            continue
        if binding.action.startswith(EVERYWHERE):
            continue
        told.add(binding.action)
        lines.append(f"  {screen.app.get_key_display(binding):<10} {binding.description}")
    lines += ["", "The mouse works too: click a tab, a title, a row, or a key of the last lines."]
    signs = getattr(screen, "signs", "")
    if signs:
        lines += ["", "Signs", "", *(f"  {line}" for line in signs.strip().splitlines())]
    return "\n".join(lines)
