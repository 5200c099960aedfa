"""What all tabs share: the frame, the application with its type, and corrections that many screens
offer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from tui.keys import Keys, Tabs

if TYPE_CHECKING:
    from tui.app import Review


class Tab(Screen[Any]):
    """A screen with the tabs above and the keys below."""

    mode: ClassVar[str]
    signs: ClassVar[str] = ""
    """What its signs mean, for the help."""

    def compose(self) -> ComposeResult:
        """The frame around `content`."""
        yield Tabs(self.mode)
        yield from self.content()
        yield Keys()

    def content(self) -> Iterable[Widget]:
        """What lies between tabs and keys."""
        return ()

    @property
    def review(self) -> Review:
        """The application."""
        return cast("Review", self.app)

    def tell(self, about: str) -> None:
        """Say something at the right of the tabs."""
        self.query_one(Tabs).tell(about)
