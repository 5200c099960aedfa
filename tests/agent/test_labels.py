"""The listener's label: what counts for it, and what never does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.config import Labels
from agent.labels import label_session, label_turn, rule_name, span_of
from agent.records import AffectWindow, Turn
from tests.agent.session_samples import session, turn, window

pytestmark = pytest.mark.unit

configs = st.builds(
    Labels,
    rule=st.sampled_from(["any", "majority", "share"]),
    share=st.floats(0, 1),
    min_coverage=st.floats(0, 1),
    max_after_s=st.floats(0, 20),
)
seconds = st.integers(0, 240).map(lambda quarter: quarter / 4)
"""Quarters of a second: borders then coincide often."""


@st.composite
def dialogues(draw: st.DrawFn) -> tuple[Turn, list[Turn]]:
    """An agent turn, and the turns of its session in any order."""
    starts = draw(st.lists(seconds, min_size=1, max_size=6).map(sorted))
    speakers = draw(st.lists(st.sampled_from(["user", "agent"]), min_size=6, max_size=6))
    mine = draw(st.integers(0, len(starts) - 1))
    speakers[mine] = "agent"
    turns = [
        turn(i, who, start, end_s=start + draw(st.integers(0, 40)) / 4)
        for i, (start, who) in enumerate(zip(starts, speakers, strict=False))
    ]
    return turns[mine], draw(st.permutations(turns))


windows = st.lists(st.tuples(seconds, st.sampled_from([True, False, None])), max_size=40).map(
    lambda found: [window(i, positive, start) for i, (start, positive) in enumerate(found)]
)


def centre(w: AffectWindow) -> float:
    return (w.start_s + w.end_s) / 2


def on(positive: str, config: Labels | None = None, **more: Any) -> Any:
    """The label of a turn from 0 to 8 s of windows each a second: + positive, - not, . no face."""
    values = {"+": True, "-": False, ".": None}
    mine = turn(0, "agent", 0.0, end_s=8.0)
    found = [window(i, values[sign], float(i)) for i, sign in enumerate(positive)]
    return label_turn(mine, [mine], found, config or Labels(**more)).li


@given(dialogues(), windows, configs)
def test_only_windows_in_the_span_matter(
    dialogue: tuple[Turn, list[Turn]], found: list[AffectWindow], config: Labels
) -> None:
    mine, turns = dialogue
    start_s, end_s = span_of(mine, turns, config.max_after_s)
    label = label_turn(mine, turns, found, config)
    inside = [w for w in found if start_s <= centre(w) < end_s]
    assert label == label_turn(mine, turns, inside, config)
    assert label == label_turn(mine, turns, list(reversed(found)), config)
    assert sorted(label.windows) == [w.index for w in inside]
    by_index = {w.index: w for w in found}
    next_user = [t.start_s for t in turns if t.speaker == "user" and t.index > mine.index]
    for index in label.windows:
        assert centre(by_index[index]) >= mine.start_s
        assert centre(by_index[index]) < min(next_user, default=float("inf"))
        assert centre(by_index[index]) < mine.end_s + config.max_after_s


@given(dialogues(), windows, configs, st.integers(0, 39))
def test_a_window_outside_may_say_anything(
    dialogue: tuple[Turn, list[Turn]], found: list[AffectWindow], config: Labels, which: int
) -> None:
    mine, turns = dialogue
    start_s, end_s = span_of(mine, turns, config.max_after_s)
    outside = [w for w in found if not start_s <= centre(w) < end_s]
    assume(outside)
    changed = outside[which % len(outside)]
    for positive in (True, False, None):
        others = [w for w in found if w is not changed]
        others.append(window(changed.index, positive, changed.start_s))
        assert label_turn(mine, turns, others, config) == label_turn(mine, turns, found, config)


@given(dialogues(), windows, configs)
def test_unknown_without_enough_windows_and_only_then(
    dialogue: tuple[Turn, list[Turn]], found: list[AffectWindow], config: Labels
) -> None:
    mine, turns = dialogue
    label = label_turn(mine, turns, found, config)
    seen = [found[i].positive is not None for i in label.windows]
    coverage = sum(seen) / len(seen) if seen else 0.0
    assert label.coverage == coverage
    assert (label.li is None) == (not any(seen) or coverage < config.min_coverage)


@given(dialogues(), windows, configs)
def test_all_positive_is_1_and_none_positive_is_0(
    dialogue: tuple[Turn, list[Turn]], found: list[AffectWindow], config: Labels
) -> None:
    mine, turns = dialogue
    known = label_turn(mine, turns, found, config).li is not None

    def all_of(positive: bool) -> int | None:
        same = [window(w.index, w.positive and positive or positive, w.start_s) for w in found]
        same = [a if b.positive is not None else b for a, b in zip(same, found, strict=True)]
        return label_turn(mine, turns, same, config).li

    assert all_of(True) == (1 if known else None)
    zero = 1 if config.rule == "share" and config.share == 0 else 0
    assert all_of(False) == (zero if known else None)


@given(dialogues(), windows, configs, st.integers(0, 39))
def test_a_smile_more_never_lowers_the_label(
    dialogue: tuple[Turn, list[Turn]], found: list[AffectWindow], config: Labels, which: int
) -> None:
    mine, turns = dialogue
    not_positive = [w for w in found if w.positive is False]
    assume(not_positive)
    flipped = not_positive[which % len(not_positive)]
    after = [window(w.index, True, w.start_s) if w is flipped else w for w in found]
    old, new = (label_turn(mine, turns, ws, config) for ws in (found, after))
    assert (old.li is None) == (new.li is None)
    assert old.li is None or (new.li is not None and new.li >= old.li)


@given(dialogues(), st.floats(0, 20))
def test_a_span_starts_with_the_turn_and_ends_in_time(
    dialogue: tuple[Turn, list[Turn]], max_after_s: float
) -> None:
    mine, turns = dialogue
    start_s, end_s = span_of(mine, turns, max_after_s)
    assert start_s == mine.start_s
    assert start_s <= end_s <= mine.end_s + max_after_s
    later = [t.start_s for t in turns if t.speaker == "user" and t.index > mine.index]
    assert end_s == min([*later, mine.end_s + max_after_s])


def test_the_span_by_hand() -> None:
    agent, barge_in, late = turn(1, "agent", 4.0, end_s=9.0), turn(2, "user", 7.0), turn(3)
    before = turn(0, "user", 0.0, end_s=4.5)
    assert span_of(agent, [agent], 10) == (4.0, 19.0)
    assert span_of(agent, [before, agent], 10) == (4.0, 19.0)
    assert span_of(agent, [late, barge_in, agent, before], 10) == (4.0, 6.0)  # late starts at 6
    assert span_of(agent, [barge_in, agent], 10) == (4.0, 7.0)
    assert span_of(agent, [agent, turn(2, "agent", 7.0)], 1) == (4.0, 10.0)
    assert span_of(agent, [agent, turn(2, "user", 4.0)], 10) == (4.0, 4.0)


def test_a_window_belongs_where_its_centre_lies() -> None:
    turns = [turn(0, "agent", 1.0, end_s=3.0), turn(1, "user", 5.0), turn(2, "agent", 5.0)]
    found = [window(i, True, start) for i, start in enumerate([-0.0, 0.0, 3.5, 3.99, 4.0, 4.5])]
    first = label_turn(turns[0], turns, found, Labels())
    second = label_turn(turns[2], turns, found, Labels())
    assert (first.windows, second.windows) == ((0, 1, 2, 3), (4, 5))


@pytest.mark.parametrize(
    ("seen", "any_", "majority", "half", "most"),
    [
        ("++--", 1, 0, 1, 0),  # a tie is no majority
        ("+++--", 1, 1, 1, 0),
        ("++---", 1, 0, 0, 0),
        ("++++-", 1, 1, 1, 1),
        ("+++", 1, 1, 1, 1),
        ("---", 0, 0, 0, 0),
        ("+", 1, 1, 1, 1),
        ("...", None, None, None, None),
        ("", None, None, None, None),
        ("+..", None, None, None, None),  # a third is under the coverage
        ("+.", 1, 1, 1, 1),  # a half is just enough
        ("-.", 0, 0, 0, 0),
        ("++..--", 1, 0, 1, 0),  # no face is no vote
    ],
)
def test_the_rules(
    seen: str, any_: int | None, majority: int | None, half: int | None, most: int | None
) -> None:
    assert on(seen, rule="any") == any_
    assert on(seen, rule="majority") == majority
    assert on(seen, rule="share", share=0.5) == half
    assert on(seen, rule="share", share=0.8) == most


def test_without_a_face_nothing_is_known_even_with_no_coverage_asked() -> None:
    assert on("...", min_coverage=0.0) is None
    assert on("..+", min_coverage=0.0) == 1


def test_the_rule_is_stored_in_words() -> None:
    assert rule_name(Labels()) == "majority, coverage>=0.5, after<=10s"
    shared = Labels(rule="share", share=0.75, min_coverage=0.25, max_after_s=2.5)
    assert rule_name(shared) == "share>=0.75, coverage>=0.25, after<=2.5s"
    mine = turn(0, "agent", 0.0)
    assert label_turn(mine, [mine], [], shared).rule == rule_name(shared)


def test_the_user_has_no_label() -> None:
    with pytest.raises(ValueError, match="turn 0 is the user's"):
        label_turn(turn(0), [], [], Labels())


def test_a_session_is_labelled_anew() -> None:
    old = {"li": 0, "li_coverage": 0.1, "li_windows": [9], "li_rule": "old"}
    before = session(
        turns=[turn(0), turn(1, "agent", **old), turn(2)], windows=[window(1, True), window(2)]
    )
    copy = before.model_copy(deep=True)
    after = label_session(before, Labels())
    assert before == copy
    rule = rule_name(Labels())
    new = {"li": 1, "li_coverage": 0.5, "li_windows": [1, 2], "li_rule": rule}
    assert after == session(
        turns=[turn(0), turn(1, "agent", **new), turn(2)], windows=before.windows
    )
    without = label_session(before.model_copy(update={"windows": []}), Labels())
    assert (without.turns[1].li, without.turns[1].li_windows) == (None, [])
