"""What the policy reads of the dialogue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.protocols import Message
from agent.history import OPENING, History
from agent.records import Turn

pytestmark = pytest.mark.unit


def turn(index: int, speaker: str, text: str) -> Turn:
    kind = "utterance" if speaker == "user" else "reply"
    return Turn(index=index, speaker=speaker, start_s=index, end_s=index, text=text, kind=kind)  # type: ignore[arg-type]


def history(budget: int) -> History:
    return History("be kind", budget, lambda text: len(text.split()))


def test_roles_alternate_and_begin_with_the_user() -> None:
    turns = [turn(0, "agent", "Hello."), turn(1, "user", "Hi"), turn(2, "user", "there")]
    assert history(500).messages(turns, "how are you") == [
        Message("system", "be kind"),
        OPENING,
        Message("assistant", "Hello."),
        Message("user", "Hi there how are you"),
    ]


def test_the_oldest_turns_go_first_and_the_front_stays_for_a_while() -> None:
    past = history(160)
    turns, fronts = [], []
    for index in range(60):
        text = f"turn {index} of ten words a b c d e f"
        turns.append(turn(index, "user" if index % 2 else "agent", text))
        messages = past.messages(turns)
        fronts.append(next(m.content for m in messages[1:] if m is not OPENING))
        assert messages[-1].content == turns[-1].text
    assert len(set(fronts)) < 30, "the prompt's front must not change with every turn"


@given(st.lists(st.text("ab ", max_size=60), max_size=30), st.integers(64, 300))
def test_the_budget_holds_and_roles_alternate(texts: list[str], budget: int) -> None:
    turns = [turn(i, "user" if i % 2 else "agent", t) for i, t in enumerate(texts)]
    messages = history(budget).messages(turns, "now this")
    assert sum(len(m.content.split()) for m in messages) <= budget + 2
    roles = [m.role for m in messages[1:]]
    assert roles == ["user", "assistant"] * (len(messages) // 2 - 1) + ["user"]
    assert messages[-1].content.endswith("now this")
