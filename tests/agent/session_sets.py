"""Small sets of sessions that have much in common, and what a list should tell of each: the whole
records counted in plain Python."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st

from agent import schema
from agent.records import Consent, EndedHow, Session
from agent.store import Store
from agent.store_rows import put_turns, put_windows
from tests.agent.session_samples import PEOPLE, START, session, turn, window
from tests.agent.stores import wipe

LIVE_OWNER = "elsewhere/boot|1|1"
TAGS = ("a", "A", "x", 'a"x', "ä", "Ä", "50%", "5_", "\\", "a\\", '"', ", ", "", "世界 😀")
SAID = ("Grüße", "GRÜSSE", "Дом", "50%", "5_0", "5a0", "back\\slash", "it's", "/", 'so"', "a  b")


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    """One of these, or None."""
    return st.sampled_from([None, *values])


@st.composite
def sets_of_sessions(draw: st.DrawFn) -> list[Session]:
    """A few sessions that have much in common; one that has not ended is live."""
    found = []
    for n in range(draw(st.integers(1, 6))):
        speakers = draw(st.lists(st.sampled_from(["user", "agent"]), max_size=4))
        texts = st.lists(st.sampled_from(SAID), max_size=3).map(" ".join)
        found.append(
            session(
                f"s-{n}",
                started_at=START + timedelta(minutes=draw(st.integers(0, 3))),
                ended_how=draw(one_of(*EndedHow)),
                consent=draw(st.sampled_from([Consent.KEEP, Consent.LEARN])),
                overall_affect=draw(one_of(0.0, 50.0, 100.0)),
                excluded=draw(st.booleans()),
                policy_id=draw(one_of("", "p", "q")),
                tags=draw(st.lists(st.sampled_from(TAGS), max_size=3)),
                note=draw(one_of("", "a note")),
                person=draw(one_of(*PEOPLE)),
                turns=[
                    turn(i, speaker, text=draw(texts), li=draw(one_of(0, 1)))
                    for i, speaker in enumerate(speakers)
                ],
                windows=[
                    window(i, positive)
                    for i, positive in enumerate(draw(st.lists(one_of(True, False), max_size=5)))
                ],
            )
        )
    return found


def share(part: int, whole: int) -> float | None:
    """A part of a whole; None of nothing."""
    return part / whole if whole else None


def seen_of(one: Session) -> float | None:
    """The share of windows with a face."""
    return share(sum(w.positive is not None for w in one.windows), len(one.windows))


def positive_of(one: Session) -> float | None:
    """The share of positive windows among those with a face."""
    seen = [w.positive for w in one.windows if w.positive is not None]
    return share(sum(seen), len(seen))


def labelled_of(one: Session) -> float | None:
    """The share of agent turns with a label."""
    agents = [t for t in one.turns if t.speaker == "agent"]
    return share(sum(t.li is not None for t in agents), len(agents))


def length_of(one: Session) -> float:
    """Seconds to the end of the last part."""
    return max((part.end_s for part in (*one.turns, *one.windows)), default=0.0)


def is_live(one: Session) -> bool:
    """Whether `fill` makes it a call in progress."""
    return one.ended_how is None


def fill(store: Store, those: Iterable[Session]) -> None:
    """These and no others, in one quick transaction; what has not ended is live."""
    wipe(store)
    with store.writing() as connection:
        for one in those:
            row = schema.session_row(one, LIVE_OWNER if is_live(one) else None)
            connection.execute(sa.insert(schema.sessions).values(row))
            put_turns(connection, one.id, one.turns)
            put_windows(connection, one.id, one.windows)
