"""Train, validation and test sets by conversation or by person, seeded and recorded."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from learning.dialogue import Dialogue

By = Literal["conversation", "person"]
LARGEST_GROUP = 0.3
"""A group of acquainted people above this share of all dialogues cannot stay together."""


@dataclass(slots=True, frozen=True)
class Split:
    """Dialogue ids of each part; no conversation (or person) is in two."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    left_out: tuple[str, ...]
    """By person only: dialogues whose people fell into different parts."""
    seed: int
    by: By

    def pick(self, dialogues: Sequence[Dialogue], part: str) -> list[Dialogue]:
        """The dialogues of `train`, `validation` or `test`, in their own order."""
        wanted = set(getattr(self, part))
        return [d for d in dialogues if d.id in wanted]


def split(
    dialogues: Sequence[Dialogue],
    seed: int,
    by: By = "conversation",
    validation: float = 0.15,
    test: float = 0.2,
) -> Split:
    """Shuffle and cut.

    By conversation, the two dialogues of one conversation (`id` up to the first `#`) stay together.
    By person, so do all dialogues of people who met each other, directly or through others. Where
    nearly everybody did, people are dealt to the parts instead and a dialogue between two parts is
    left out.
    """
    rng = random.Random(seed)
    if by == "person":
        groups = _gathered(_acquainted(dialogues))
        if max((len(g) for g in groups), default=0) > LARGEST_GROUP * len(dialogues):
            return _by_people(dialogues, rng, seed, validation, test)
    else:
        groups = _gathered((d.id, d.id.partition("#")[0]) for d in dialogues)
    rng.shuffle(groups)
    sizes = {"test": round(test * len(dialogues)), "validation": round(validation * len(dialogues))}
    parts: dict[str, list[str]] = {"test": [], "validation": [], "train": []}
    for group in groups:
        free = (part for part, size in sizes.items() if len(parts[part]) + len(group) <= size)
        parts[next(free, "train")] += group
    return Split(
        tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"]), (), seed, by
    )


def _by_people(
    dialogues: Sequence[Dialogue], rng: random.Random, seed: int, validation: float, test: float
) -> Split:
    people = sorted({person for d in dialogues for person in d.people or (d.id,)})
    rng.shuffle(people)
    first, second = round(test * len(people)), round((test + validation) * len(people))
    part_of = {p: "test" for p in people[:first]}
    part_of |= {p: "validation" for p in people[first:second]}
    parts: dict[str, list[str]] = defaultdict(list)
    for d in dialogues:
        theirs = {part_of.get(person, "train") for person in d.people or (d.id,)}
        parts[theirs.pop() if len(theirs) == 1 else "left_out"].append(d.id)
    train, held, tested, out = (
        tuple(parts[p]) for p in ("train", "validation", "test", "left_out")
    )
    return Split(train, held, tested, out, seed, "person")


def _acquainted(dialogues: Sequence[Dialogue]) -> list[tuple[str, str]]:
    """Each dialogue's id and one name for all people its people are connected to (union-find)."""
    parent: dict[str, str] = {}

    def root(person: str) -> str:
        parent.setdefault(person, person)
        while parent[person] != person:
            parent[person] = parent[parent[person]]
            person = parent[person]
        return person

    for d in dialogues:
        for a, b in zip(d.people, d.people[1:], strict=False):
            parent[root(a)] = root(b)
    return [(d.id, root(d.people[0]) if d.people else d.id) for d in dialogues]


def _gathered(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    out: dict[str, list[str]] = defaultdict(list)
    for dialogue_id, group in pairs:
        out[group].append(dialogue_id)
    return [out[key] for key in sorted(out)]
