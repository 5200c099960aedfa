"""What a record takes and what it refuses."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from agent.records import (
    AffectWindow,
    EndedHow,
    Latency,
    Session,
    Turn,
    new_session_id,
    person_of,
)
from tests.agent import session_samples as samples
from tests.agent.session_samples import session, turn, window

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("field", ["started_at", "ended_at", "overall_affect_at"])
def test_times_have_a_zone(field: str) -> None:
    with pytest.raises(ValidationError, match="a time needs its zone"):
        session(**{field: datetime(2026, 11, 23, 10)})
    with pytest.raises(ValidationError, match="a time outside the years"):
        session(**{field: datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))})
    east = timezone(timedelta(hours=9))
    kept = getattr(session(**{field: datetime(2026, 11, 23, 19, tzinfo=east)}), field)
    assert (kept, kept.tzinfo) == (datetime(2026, 11, 23, 10, tzinfo=UTC), UTC)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("record", "field"),
    [
        (turn, "start_s"),
        (turn, "end_s"),
        (turn, "li_coverage"),
        (turn, "sentiment"),
        (session, "overall_affect"),
    ],
)
def test_no_number_is_nan(record: Any, field: str, bad: float) -> None:
    identity = 0 if record is turn else "s-1"
    with pytest.raises(ValidationError, match=field):
        if field == "start_s":
            Turn(index=0, speaker="user", start_s=bad, end_s=1.0, text="")
        else:
            record(identity, **{field: bad})


@pytest.mark.parametrize("field", list(Latency.model_fields))
def test_no_latency_is_nan(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Latency.model_validate({field: math.nan})


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("coverage", math.nan),
        ("coverage", 1.01),
        ("valence", -1.01),
        ("probabilities", {"happiness": math.nan}),
        ("probabilities", {"happiness": 1.5}),
        ("index", -1),
        ("start_s", -0.1),
    ],
)
def test_a_window_out_of_range(field: str, bad: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        AffectWindow.model_validate(window(0, True).model_dump() | {field: bad})


def test_what_prosody_could_not_measure_is_left_out() -> None:
    assert turn(0, prosody={"a": 1.0, "b": math.nan, "c": math.inf}).prosody == {"a": 1.0}


def test_a_turn_does_not_end_before_it_starts() -> None:
    assert turn(0, end_s=0.0).end_s == 0.0
    with pytest.raises(ValidationError, match=r"turn 1 ends \(1.0\) before it starts"):
        turn(1, end_s=1.0)
    later = turn(1)
    with pytest.raises(ValidationError, match="before it starts"):
        later.end_s = 0.5


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("overall_affect", -1),
        ("overall_affect", 100.01),
        ("consent", "maybe"),
        ("source", "phone"),
        ("ended_how", "bored"),
        ("schema_version", 2),
        ("id", ""),
        ("id", "a/b"),
        ("id", "a\n"),
        ("id", "ä"),
        ("extra", 1),
    ],
)
def test_a_session_out_of_range(field: str, bad: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        session(**({"session_id": bad} if field == "id" else {field: bad}))


def test_assignment_is_checked_too() -> None:
    mine = session()
    with pytest.raises(ValidationError):
        mine.overall_affect = 101.0
    mine.ended_how = EndedHow.HUNG_UP
    assert mine.ended_how == "hung_up"


@pytest.mark.parametrize("li", [2, -1, 0.5, "1"])
def test_a_label_is_0_or_1(li: Any) -> None:
    with pytest.raises(ValidationError, match="li"):
        turn(0, "agent", li=li)


def test_spoken_text_is_computed_and_ignored_on_input() -> None:
    agent = turn(1, "agent", text="heard", generated_text="heard and not", spoken_text="a lie")
    assert agent.spoken_text == "heard"
    assert turn(0, spoken_text="a lie").spoken_text is None
    assert json.loads(agent.model_dump_json())["spoken_text"] == "heard"
    assert Turn.model_validate(agent.model_dump()) == agent
    given_data = agent.model_dump()
    Turn.model_validate(given_data)
    assert "spoken_text" in given_data  # the caller's object is left alone


@given(samples.sessions())
def test_json_and_back(any_session: Session) -> None:
    assert Session.model_validate_json(any_session.model_dump_json()) == any_session
    assert Session.model_validate(any_session.model_dump()) == any_session


def test_ids_are_new_and_sort_by_time() -> None:
    made = {new_session_id() for _ in range(500)}
    assert len(made) == 500
    assert all(session(name).id == name for name in made)
    when = datetime.strptime(min(made).partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - when) < timedelta(hours=1)


def test_a_token_is_stored_as_its_hash_only() -> None:
    token = "äöü-0123456789abc"
    stored = person_of(f"  {token}\n")
    assert stored == person_of(token) == hashlib.sha256(token.encode()).hexdigest()
    assert person_of(token + "d") != stored
    assert session(person=stored).person == stored


@pytest.mark.parametrize("token", ["", " " * 20, "x" * 15, f"   {'x' * 15}   ", "x" * 129])
def test_a_token_that_could_be_guessed_is_none(token: str) -> None:
    with pytest.raises(ValueError, match="a person's token has 16 to 128 characters"):
        person_of(token)


@pytest.mark.parametrize("person", ["", "a token of sixteen", "0" * 63, "0" * 65, "G" * 64])
def test_a_record_takes_no_token_for_a_person(person: str) -> None:
    with pytest.raises(ValidationError):
        session(person=person)
