"""The two lines that frame every screen: the tabs above, the keys below."""

from __future__ import annotations

from typing import Any

from rich.style import Style
from rich.text import Text
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Static

TABS = {
    "sessions": "Sessions",
    "policies": "Policies",
    "rounds": "Rounds",
    "blind": "Rate",
    "privacy": "Privacy",
}
"""Mode to its title, in the order of the keys 1, 2, 3, …"""


class Tabs(Static):
    """The tabs, which one is open, and at the right what the screen says of itself."""

    def __init__(self, current: str) -> None:
        super().__init__(id="tabs")
        self.current = current
        self.about = ""

    def tell(self, about: str) -> None:
        """Set the text at the right."""
        self.about = about
        self.refresh()

    def render(self) -> Text:
        """Tabs with their keys; the open one in brackets, so that no colour is needed to see it."""
        out = Text(no_wrap=True, overflow="crop")
        for n, (mode, title) in enumerate(TABS.items(), start=1):
            here = mode == self.current
            click = Style(meta={"@click": f"app.switch_mode('{mode}')"}, bold=here, reverse=here)
            out.append(f"[{n} {title}]" if here else f" {n} {title} ", click)
        room = self.size.width - out.cell_len - 1
        about = Text(self.about, no_wrap=True, overflow="ellipsis")
        about.truncate(max(room, 0), overflow="ellipsis")
        out.append(" " * max(room - about.cell_len + 1, 0))
        out.append_text(about)
        return out


class Keys(Static):
    """Every key that does something here, with what it does; a click does it too."""

    def on_mount(self) -> None:
        """Follow the screen's bindings."""
        self.screen.bindings_updated_signal.subscribe(self, self._follow)

    def _follow(self, screen: Screen[Any]) -> None:
        self.refresh(layout=True)

    def render(self) -> Text:
        """`key word` pairs."""
        return Text("\n").join(self._lines(self.content_size.width))

    def _lines(self, width: int) -> list[Text]:
        """Lines of pairs, broken between pairs only."""
        lines = [Text(no_wrap=True)]
        told = set()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if not binding.show or binding.action in told:
                continue
            told.add(binding.action)
            click = Style(meta={"@click": f"app.simulate_key('{binding.key}')"})
            pair = Text(no_wrap=True)
            pair.append(self.app.get_key_display(binding), Style(bold=True) + click)
            pair.append(f" {binding.description}", click + Style(dim=not active.enabled))
            if lines[-1] and lines[-1].cell_len + 2 + pair.cell_len > width:
                lines.append(Text(no_wrap=True))
            if lines[-1]:
                lines[-1].append("  ")
            lines[-1].append_text(pair)
        return lines

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as the pairs need at that width."""
        return len(self._lines(width))
