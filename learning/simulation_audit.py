"""What a policy did in simulated calls and how it was taken, worked out from the stored text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.records import Session
from learning.dialogue import Utterance
from learning.errors import DataError
from learning.intervals import Bootstrap
from learning.listener import Assumptions, Persona, persona, read, truth

SHARES = frozenset({"flattery", "questions", "follow_ups", "robot", "positive_face"})
_COMMENT = re.compile(r"simulated persona (\d+)")


def comment_of(who: Persona) -> str:
    """How a session names its caller."""
    return f"simulated persona {who.seed}"


def persona_of(session: Session, assumptions: Assumptions = Assumptions()) -> Persona:  # noqa: B008
    """Who held a simulated call.

    Raises:
        DataError: the session is not of a simulated person.
    """
    found = _COMMENT.fullmatch(session.comment or "")
    if session.source != "simulated" or not found:
        raise DataError(f"session {session.id} was not held by a simulated person")
    return persona(int(found[1]), assumptions.ratings)


def truth_of(
    sessions: Sequence[Session],
    assumptions: Assumptions = Assumptions(),  # noqa: B008 (frozen)
) -> list[list[float]]:
    """What each reply of the policy contributed, in points of its call's rating.

    Args:
        sessions: of simulated people, held under `assumptions`.
        assumptions: the coefficients.

    Returns:
        A list a session, with a number for each turn of kind `reply`, in order.

    Raises:
        DataError: a session of somebody real.
    """
    out = []
    for session in sessions:
        who = persona_of(session, assumptions)
        history = _history(session)
        out.append(
            [
                truth(history[:i], turn.text, who, assumptions.effects)
                for i, turn in enumerate(session.turns)
                if turn.kind == "reply"
            ]
        )
    return out


def audit(
    sessions: Sequence[Session],
    assumptions: Assumptions = Assumptions(),  # noqa: B008 (frozen)
    seed: int = 0,
) -> dict[str, Any]:
    """What the policy did in these calls and how it was taken.

    Args:
        sessions: simulated calls with at least one reply each.
        assumptions: what they were held under.
        seed: of the bootstrap.

    Returns:
        `sessions` and `replies` (counts), and by name `{value, low, high, n}` with a 95 % interval
        over calls (`learning.intervals`; null where there was nothing to measure): `rating`
        (points), `true_effect` (points of the rating a reply), `words` (a reply), `distinct_2`
        (distinct pairs of words over all pairs of a call), `repetition` (mean share of a reply's
        3-grams that were there before), and shares of replies: `flattery`, `questions`,
        `follow_ups`, `robot`, and `positive_face` (of the replies with a label).

    Raises:
        DataError: no session, or one without a reply or of somebody real.
    """
    if not sessions:
        raise DataError("no simulated session to audit", "hold some calls first")
    rows = [
        _measures(session, truths)
        for session, truths in zip(sessions, truth_of(sessions, assumptions), strict=True)
    ]
    out: dict[str, Any] = {
        "sessions": len(sessions),
        "replies": int(sum(row["replies"] for row in rows)),
    }
    over_calls = Bootstrap([session.id for session in sessions], seed)
    for name in rows[0]:
        if name != "replies":
            bounds = (0.0, 1.0) if name in SHARES else None
            out[name] = over_calls.mean([row[name] for row in rows], bounds).as_json()
    return out


def _measures(session: Session, truths: Sequence[float]) -> dict[str, float]:
    history = _history(session)
    replies = [(i, turn) for i, turn in enumerate(session.turns) if turn.kind == "reply"]
    if not replies:
        raise DataError(f"session {session.id} has no reply of the policy")
    readings = [read(history[:i], turn.text) for i, turn in replies]
    faces = [turn.li for _, turn in replies if turn.li is not None]
    words = [turn.text.lower().split() for _, turn in replies]
    pairs = [pair for said in words for pair in zip(said, said[1:], strict=False)]
    rating = session.overall_affect
    return {
        "replies": len(replies),
        "rating": float("nan") if rating is None else rating,
        "true_effect": float(np.mean(truths)),
        "words": float(np.mean([len(said) for said in words])),
        "distinct_2": len(set(pairs)) / len(pairs) if pairs else float("nan"),
        "repetition": float(np.mean([r.repeated for r in readings])),
        "flattery": float(np.mean([r.praise for r in readings])),
        "questions": float(np.mean([r.question for r in readings])),
        "follow_ups": float(np.mean([r.follow_up > 0 for r in readings])),
        "robot": float(np.mean([r.robot for r in readings])),
        "positive_face": float(np.mean(faces)) if faces else float("nan"),
    }


def _history(session: Session) -> list[Utterance]:
    return [
        Utterance("agent" if turn.speaker == "agent" else "listener", turn.text, False)
        for turn in session.turns
    ]
