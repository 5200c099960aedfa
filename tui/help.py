"""The help of a screen: its keys and signs."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen


def help_of(screen: Screen[Any]) -> str:
    """Every key that works there, also those that the last lines do not show, and the signs."""
    lines = ["Keys", ""]
    told = set()
    for active in screen.active_bindings.values():
        binding = active.binding
        if binding.action in told or not binding.description or binding.system:
            continue
        told.add(binding.action)
        lines.append(f"  {screen.app.get_key_display(binding):<10} {binding.description}")
    lines += ["", "The mouse works too: click a tab, a title, a row, or a key of the last lines."]
    signs = getattr(screen, "signs", "")
    if signs:
        lines += ["", "Signs", "", *(f"  {line}" for line in signs.strip().splitlines())]
    return "\n".join(lines)
