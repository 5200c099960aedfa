"""Every column for every policy, with intervals, and the differences from the first policy.

Histories are drawn by dialogue, the same draws for every policy, so that differences are paired.
What is counted over the whole set of replies (distinct-n, identical replies) has a jackknife
interval, and the safety probe is drawn by its prompts (see learning/intervals.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from learning.compare import measures, probes
from learning.compare.questions import QUESTIONS
from learning.dialogue import Utterance
from learning.intervals import Bootstrap, Floats, Interval

Section = Literal["preference", "reward", "text", "audit"]


@dataclass(slots=True, frozen=True)
class Column:
    """One measure."""

    key: str
    title: str
    section: Section
    digits: int = 1
    share: bool = False
    """0 to 1, shown in percent."""
    better: Literal["↑", "↓", ""] = ""


COLUMNS = (
    *(Column(q.metric, q.title, "preference", share=True, better="↑") for q in QUESTIONS),
    Column("score", "GELI score", "reward", 4, better="↑"),
    Column("win_rate", "wins", "reward", share=True, better="↑"),
    Column("kl", "KL, nats", "reward", 2),
    Column("words", "words", "text", 1),
    Column("distinct_1", "distinct-1", "text", 3),
    Column("distinct_2", "distinct-2", "text", 3),
    Column("repetition", "repetition", "text", share=True, better="↓"),
    Column("questions", "questions", "text", share=True),
    Column("sentiment", "sentiment", "text", 3),
    Column("flattery", "flattery", "audit", share=True, better="↓"),
    Column("identical", "identical", "audit", share=True, better="↓"),
    Column("empty", "empty", "audit", share=True, better="↓"),
    Column("refusals", "refusals", "audit", share=True, better="↓"),
    Column("toxic", "toxic words", "audit", share=True, better="↓"),
    Column("unsafe", "unsafe", "audit", share=True, better="↓"),
)
_SHARES = {c.key for c in COLUMNS if c.share}

Marks = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(slots=True)
class Answers:
    """What one policy said, and what it was worth."""

    name: str
    replies: list[str]
    """[histories]."""
    scores: list[float]
    """The reward's, points 0 to 100, [histories]."""
    kl: list[float] | None = None
    """Nats to the base, [histories]; None where there is none (a person's words)."""
    safety: list[float] | None = None
    """1 for each safety prompt answered unsafely."""


@dataclass(slots=True, frozen=True)
class Row:
    """One policy."""

    policy: str
    cells: dict[str, Interval]
    differences: dict[str, Interval]
    """From the first policy; empty for it."""


@dataclass(slots=True, frozen=True)
class Comparison:
    """What `geli learn compare` prints."""

    rows: tuple[Row, ...]
    histories: int
    dialogues: int
    seed: int
    about: dict[str, Any]
    """Where the replies come from: source, digest, reward, split, policies."""
    rating: dict[str, Any] | None = None
    """Who filled the eight columns, and how far they agree."""
    notes: tuple[str, ...] = field(default=())

    def columns(self, section: Section | None = None) -> list[Column]:
        """Columns that some policy has a value in."""
        return [
            c
            for c in COLUMNS
            if section in (None, c.section) and any(c.key in row.cells for row in self.rows)
        ]


def build(
    histories: Sequence[Sequence[Utterance]],
    groups: Sequence[str],
    answers: Sequence[Answers],
    *,
    seed: int,
    marks: Marks | None = None,
    about: Mapping[str, Any] | None = None,
    rating: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """Measure every policy's replies; the first is what the others are compared with.

    Args:
        histories: what all of them answered.
        groups: the dialogue of each, [histories].
        answers: one a policy.
        seed: of the draws.
        marks: metric, policy, [histories]: the eight questions, 0 to 1.
        about: kept as it is.
        rating: kept as it is.
        notes: kept as they are.
    """
    bootstrap = Bootstrap(groups, seed)
    values = [_values(a, answers[0], histories, marks) for a in answers]
    whole = [_whole(a.replies, bootstrap) for a in answers]
    prompts = Bootstrap(range(len(probes.PROMPTS)), seed)
    rows = []
    for i, answer in enumerate(answers):
        cells = _cells(values[i], bootstrap)
        differences = _differences(values[i], values[0], bootstrap)
        for key, (value, without) in whole[i].items():
            first, share = whole[0][key], key in _SHARES
            found = bootstrap.jackknife(value, without, (0, 1) if share else None)
            cells[key] = replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))
            differences[key] = bootstrap.jackknife(
                value - first[0], without - first[1], (-1, 1) if share else None
            )
        if answer.safety is not None:
            cells["unsafe"] = prompts.mean(answer.safety, (0, 1))
            if (base := answers[0].safety) is not None:
                differences["unsafe"] = prompts.difference(answer.safety, base, (0, 1))
        rows.append(Row(answer.name, cells, differences if i else {}))
    return Comparison(
        tuple(rows), len(histories), bootstrap.groups, seed, dict(about or {}),
        dict(rating) if rating is not None else None, tuple(notes),
    )  # fmt: skip


def of_ratings(
    groups: Sequence[str],
    marks: Marks,
    scores: Mapping[str, Sequence[float]],
    *,
    seed: int,
    about: Mapping[str, Any] | None = None,
    rating: Mapping[str, Any] | None = None,
) -> Comparison:
    """The eight columns that people filled in, and the reward's score from the key.

    Args:
        groups: the dialogue of each history, [histories].
        marks: metric, policy, [histories].
        scores: policy, [histories], points; its order is that of the rows.
        seed: of the draws.
        about: kept as it is.
        rating: kept as it is.
    """
    bootstrap = Bootstrap(groups, seed)
    names = list(scores)
    values = [
        {metric: np.asarray(by_policy[name]) for metric, by_policy in marks.items()}
        | _worth(scores[name], scores[names[0]])
        for name in names
    ]
    del values[0]["win_rate"]
    rows = [
        Row(
            name,
            _cells(own, bootstrap),
            _differences(own, values[0], bootstrap) if name != names[0] else {},
        )
        for name, own in zip(names, values, strict=True)
    ]
    return Comparison(
        tuple(rows), len(groups), bootstrap.groups, seed, dict(about or {}),
        dict(rating) if rating is not None else None,
    )  # fmt: skip


def _values(
    answer: Answers,
    first: Answers,
    histories: Sequence[Sequence[Utterance]],
    marks: Marks | None,
) -> dict[str, Floats]:
    """What is known of each reply by itself, [histories] each."""
    pairs = list(zip(histories, answer.replies, strict=True))
    out = {k: np.asarray(v) for k, v in measures.per_reply(histories, answer.replies).items()}
    out["refusals"] = np.array([float(probes.refuses(reply, h)) for h, reply in pairs])
    out["toxic"] = np.array([float(probes.toxic(reply)) for _, reply in pairs])
    out |= _worth(answer.scores, first.scores)
    if answer is first:
        del out["win_rate"]
    if answer.kl is not None:
        out["kl"] = np.asarray(answer.kl, np.float64)
    for metric, by_policy in (marks or {}).items():
        out[metric] = np.asarray(by_policy[answer.name], np.float64)
    return out


def _worth(scores: Sequence[float], first: Sequence[float]) -> dict[str, Floats]:
    """The score as the paper shows it (0 to 1), and where it beats the first's; a tie is half."""
    own, other = np.asarray(scores, np.float64), np.asarray(first, np.float64)
    known = np.isfinite(own) & np.isfinite(other)
    wins = np.where(known, np.where(own == other, 0.5, (own > other).astype(float)), math.nan)
    return {"score": own / 100, "win_rate": wins}


def _whole(replies: Sequence[str], bootstrap: Bootstrap) -> dict[str, tuple[float, Floats]]:
    """Measures of the set, and of the set without each dialogue."""
    owner = bootstrap.owner
    return {
        "distinct_1": (measures.distinct(replies, 1), measures.distinct_without(replies, owner, 1)),
        "distinct_2": (measures.distinct(replies, 2), measures.distinct_without(replies, owner, 2)),
        "identical": (measures.identical(replies), measures.identical_without(replies, owner)),
    }


def _cells(values: Mapping[str, Floats], bootstrap: Bootstrap) -> dict[str, Interval]:
    return {
        key: bootstrap.mean(column, (0, 1) if key in _SHARES else None)
        for key, column in values.items()
        if not np.isnan(column).all()
    }


def _differences(
    values: Mapping[str, Floats], first: Mapping[str, Floats], bootstrap: Bootstrap
) -> dict[str, Interval]:
    return {
        key: bootstrap.difference(column, first[key], (0, 1) if key in _SHARES else None)
        for key, column in values.items()
        if key in first and key != "win_rate" and not np.isnan(column - first[key]).all()
    }
