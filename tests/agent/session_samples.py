"""Sessions to store: one that uses every field, and hypothesis strategies for any that is valid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from agent.records import AffectWindow, Consent, EndedHow, Latency, Session, Turn, person_of

START = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
TOKENS = ("a token of sixteen", "another person's token")
PEOPLE = tuple(person_of(token) for token in TOKENS)


def turn(index: int, speaker: str = "user", start_s: float | None = None, **more: Any) -> Turn:
    """A turn of 1.5 s; the n-th starts at 2n s."""
    start_s = 2.0 * index if start_s is None else start_s
    kind = "utterance" if speaker == "user" else "reply"
    data = {"text": f"words of turn {index}", "end_s": start_s + 1.5, "kind": kind}
    return Turn.model_validate(
        data | {"index": index, "speaker": speaker, "start_s": start_s} | more
    )


def window(index: int, positive: bool | None = None, start_s: float | None = None) -> AffectWindow:
    """A 2 s window; the n-th starts at n s. `positive` None: no face."""
    start_s = float(index) if start_s is None else start_s
    seen = positive is not None
    return AffectWindow(
        index=index,
        start_s=start_s,
        end_s=start_s + 2.0,
        face_found=seen,
        coverage=1.0 if seen else 0.0,
        probabilities={"happiness": 0.9 if positive else 0.1, "neutral": 0.05} if seen else None,
        valence=(0.8 if positive else -0.2) if seen else None,
        positive=positive,
        classifier="mini-xception",
    )


def session(session_id: str = "s-1", **more: Any) -> Session:
    """A kept session of that id without turns."""
    data = {"id": session_id, "started_at": START, "consent": Consent.KEEP}
    return Session.model_validate(data | more)


def ended(session_id: str, minutes: float = 0.0, **more: Any) -> Session:
    """A session that learning may read; it started `minutes` after START and was hung up."""
    data = {
        "started_at": START + timedelta(minutes=minutes),
        "ended_at": START + timedelta(minutes=minutes + 1),
        "ended_how": EndedHow.HUNG_UP,
        "consent": Consent.LEARN,
        "turns": [turn(0), turn(1, "agent")],
        "windows": [window(2, True)],
    }
    return session(session_id, **(data | more))


def full_session() -> Session:
    """Every field differs from its default."""
    return Session(
        id="full_Session-1",
        started_at=START,
        ended_at=START + timedelta(seconds=61.5),
        ended_how=EndedHow.DROPPED,
        consent=Consent.LEARN,
        source="replay",
        overall_affect=62.5,
        overall_affect_at=START + timedelta(hours=3),
        overall_affect_source="page",
        comment='zwei\nZeilen\t"und" mehr — 😀',
        excluded=True,
        excluded_reason="a test call",
        policy_id="lora-7",
        config_digest="0123456789abcdef",
        program_version="0.1.0",
        note="asked twice for the same recipe",
        tags=["cooking", "täst"],
        person="0f" * 32,
        turns=[
            turn(0, text="Grüß dich, 世界 🌍", sentiment=0.25, prosody={"f0_hz": 181.5}),
            turn(
                1,
                "agent",
                text="Nice to",
                generated_text="Nice to see you.",
                interrupted=True,
                policy_id="lora-7",
                engines={"responder": "transformers/smollm2", "speaker": "hibari"},
                latency=Latency(
                    end_of_turn_wait_ms=260.5,
                    transcription_ms=120.0,
                    first_token_ms=80.25,
                    first_sentence_ms=300.0,
                    first_audio_ms=90.0,
                    voice_to_voice_ms=0.1 + 0.2,
                ),
                li=1,
                li_coverage=2 / 3,
                li_windows=[2, 3, 4],
                li_rule="majority, coverage>=0.5, after<=10s",
                sentiment=-1.0,
            ),
        ],
        windows=[window(2, True), window(3, False), window(4)],
    )


finite = st.floats(0, 1e6, allow_nan=False)
share = st.floats(0, 1)
signed = st.floats(-1, 1)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
zones = st.integers(-23, 23).map(lambda h: timezone(timedelta(hours=h)))
times = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=zones)
ids = st.text("abcXYZ019_-", min_size=1, max_size=64)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """That, or None."""
    return st.none() | strategy


@st.composite
def spans(draw: st.DrawFn) -> tuple[float, float]:
    """A start and an end that is not before it."""
    first, second = draw(finite), draw(finite)
    return min(first, second), max(first, second)


@st.composite
def turns(draw: st.DrawFn, index: int) -> Turn:
    """Any valid turn."""
    start_s, end_s = draw(spans())
    milliseconds = maybe(st.floats(-1e5, 1e6))
    return Turn(
        index=index,
        speaker=draw(st.sampled_from(["user", "agent"])),
        start_s=start_s,
        end_s=end_s,
        text=draw(words),
        generated_text=draw(maybe(words)),
        interrupted=draw(st.booleans()),
        kind=draw(
            st.sampled_from(["reply", "greeting", "prompt", "goodbye", "apology", "utterance"])
        ),
        policy_id=draw(maybe(words)),
        engines=draw(st.dictionaries(words, words, max_size=2)),
        latency=draw(
            maybe(st.fixed_dictionaries({name: milliseconds for name in Latency.model_fields}))
        ),
        li=draw(st.sampled_from([0, 1, None])),
        li_coverage=draw(maybe(share)),
        li_windows=draw(st.lists(st.integers(0, 10_000), max_size=3)),
        li_rule=draw(maybe(words)),
        sentiment=draw(maybe(signed)),
        prosody=draw(maybe(st.dictionaries(words, st.floats(-1e9, 1e9), max_size=2))),
    )


@st.composite
def affect_windows(draw: st.DrawFn, index: int) -> AffectWindow:
    """Any valid window."""
    start_s, end_s = draw(spans())
    return AffectWindow(
        index=index,
        start_s=start_s,
        end_s=end_s,
        face_found=draw(st.booleans()),
        coverage=draw(share),
        probabilities=draw(maybe(st.dictionaries(words, share, max_size=3))),
        valence=draw(maybe(signed)),
        positive=draw(maybe(st.booleans())),
        classifier=draw(words),
    )


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Any session that may be stored."""
    indices = st.lists(st.integers(0, 2**31 - 1), unique=True, max_size=3).map(sorted)
    return Session(
        id=draw(ids),
        started_at=draw(times),
        ended_at=draw(maybe(times)),
        ended_how=draw(maybe(st.sampled_from(EndedHow))),
        consent=draw(st.sampled_from([Consent.KEEP, Consent.LEARN])),
        source=draw(st.sampled_from(["browser", "talk", "replay", "simulated", "import"])),
        overall_affect=draw(maybe(st.floats(0, 100))),
        overall_affect_at=draw(maybe(times)),
        overall_affect_source=draw(maybe(words)),
        comment=draw(maybe(words)),
        excluded=draw(st.booleans()),
        excluded_reason=draw(maybe(words)),
        policy_id=draw(maybe(words)),
        config_digest=draw(maybe(words)),
        program_version=draw(maybe(words)),
        note=draw(maybe(words)),
        tags=draw(st.lists(words, max_size=3)),
        person=draw(maybe(st.sampled_from(PEOPLE))),
        turns=[draw(turns(index)) for index in draw(indices)],
        windows=[draw(affect_windows(index)) for index in draw(indices)],
    )
