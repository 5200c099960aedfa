"""Which sessions are listed: a form for the filter, and the filter in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Checkbox, Input, Label, Select, Static

from agent.records import Consent, EndedHow
from agent.store import Filter
from tui.words import day_and_time, short_policy

LOW_COVERAGE = 0.5
"""Below this share of windows with a face, labels say little."""
DROPPED = (EndedHow.DROPPED, EndedHow.CRASHED, EndedHow.TIMED_OUT)
SINCE = {"any time": None, "the last day": 1, "the last 7 days": 7, "the last 30 days": 30}


def described(only: Filter) -> str:
    """The filter in words; empty when it lets everything through."""
    parts = []
    if only.says:
        parts.append(f"says {only.says}")
    if only.unrated:
        parts.append("unrated")
    if only.ended_how:
        parts.append("not hung up")
    if only.seen_below is not None:
        parts.append(f"face in < {only.seen_below:.0%}")
    if only.excluded is not None:
        parts.append("excluded" if only.excluded else "not excluded")
    if only.live:
        parts.append("live")
    if only.consent:
        parts.append(f"consent {', '.join(only.consent)}")
    if only.policy_id is not None:
        parts.append(f"policy {short_policy(only.policy_id)}")
    if only.tag is not None:
        parts.append(f"tag {only.tag}")
    if only.since is not None:
        parts.append(f"since {day_and_time(only.since)}")
    if only.until is not None:
        parts.append(f"until {day_and_time(only.until)}")
    if only.person is not None:
        parts.append("one person")
    return " · ".join(parts)


class Box(Checkbox):
    """A checkbox that says in text whether it is set, not by its colour alone."""

    def __init__(self, label: str, value: bool, id: str) -> None:
        self.BUTTON_INNER = "X" if value else " "
        super().__init__(label, value, id=id)

    def watch_value(self) -> None:
        """Show the mark, or none."""
        self.BUTTON_INNER = "X" if self.value else " "
        super().watch_value()


class FilterForm(ModalScreen[Filter | None]):
    """The conditions as boxes and lists; all that are set hold together."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave it"),
        Binding("ctrl+s", "take", "Apply"),
    ]

    def __init__(self, only: Filter, policies: Sequence[str], tags: Sequence[str]) -> None:
        super().__init__()
        self._only, self._policies, self._tags = only, policies, tags

    def compose(self) -> ComposeResult:
        """The form."""
        only = self._only
        with Vertical(classes="window wide"):
            yield Static("Show sessions that are …", classes="question")
            with VerticalScroll(classes="form"):
                yield Box("unrated", only.unrated, id="unrated")
                yield Box("dropped, crashed or timed out", bool(only.ended_how), id="dropped")
                below = only.seen_below is not None
                yield Box(f"low coverage: a face in < {LOW_COVERAGE:.0%}", below, id="low")
                yield Box("excluded from learning", only.excluded is True, id="excluded")
                yield Box("going on now", only.live is True, id="live")
                yield Box("given to learning", Consent.LEARN in only.consent, id="learn")
                with Horizontal(classes="field"):
                    yield Label("policy")
                    yield Select(
                        [(p, p) for p in self._policies], prompt="any", id="policy", compact=True,
                        value=only.policy_id if only.policy_id in self._policies else Select.NULL,
                    )  # fmt: skip
                with Horizontal(classes="field"):
                    yield Label("started in")
                    yield Select(
                        [(name, name) for name in SINCE], allow_blank=False, id="since",
                        value=_since_name(only.since), compact=True,
                    )  # fmt: skip
                with Horizontal(classes="field"):
                    yield Label("tag")
                    yield Select(
                        [(t, t) for t in self._tags], prompt="any", id="tag", compact=True,
                        value=only.tag if only.tag in self._tags else Select.NULL,
                    )  # fmt: skip
                with Horizontal(classes="field"):
                    yield Label("says")
                    yield Input(
                        only.says, placeholder='words, or a "phrase"', id="says", compact=True
                    )
            with Horizontal(classes="buttons"):
                yield Button("Apply (^s)", id="apply", variant="primary")
                yield Button("Clear", id="clear")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Apply the form, or let everything through."""
        self.dismiss(self._read() if event.button.id == "apply" else Filter())

    def on_input_submitted(self) -> None:
        """Enter in the text applies the form."""
        self.dismiss(self._read())

    def action_take(self) -> None:
        """Apply the form."""
        self.dismiss(self._read())

    def action_leave(self) -> None:
        """Keep the filter that was."""
        self.dismiss(None)

    def _read(self) -> Filter:
        def on(name: str) -> bool:
            return self.query_one(f"#{name}", Checkbox).value

        def chosen(name: str) -> str | None:
            value = self.query_one(f"#{name}", Select).value
            return value if isinstance(value, str) else None

        days = SINCE[chosen("since") or "any time"]
        return replace(
            self._only,
            unrated=on("unrated"),
            ended_how=DROPPED if on("dropped") else (),
            seen_below=LOW_COVERAGE if on("low") else None,
            excluded=True if on("excluded") else None,
            live=True if on("live") else None,
            consent=(Consent.LEARN,) if on("learn") else (),
            policy_id=chosen("policy"),
            since=None if days is None else datetime.now(UTC) - timedelta(days=days),
            tag=chosen("tag"),
            says=self.query_one("#says", Input).value.strip(),
        )


def _since_name(since: datetime | None) -> str:
    if since is None:
        return "any time"
    days = (datetime.now(UTC) - since) / timedelta(days=1)
    known = [(name, n) for name, n in SINCE.items() if n is not None]
    return min(known, key=lambda item: abs(item[1] - days))[0]
