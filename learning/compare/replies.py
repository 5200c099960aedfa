"""Which policies are compared, and on which histories."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from learning.dialogue import Dataset, Dialogue, Utterance
from learning.errors import DataError, RegistryError
from learning.registry import ADAPTER, BASE, Registry
from learning.splits import split

HUMAN = "human"
"""The policy whose replies are what was really said next in the data (Table 2's first row)."""


@dataclass(slots=True, frozen=True)
class Policy:
    """One row to be."""

    name: str
    """As tables show it; never shown to a judge or a rater."""
    adapter: Path | None
    """Folder of the adapter; None: the base, or a human."""
    id: str
    """What it was given as: an id of the registry, a folder, `base` or `human`."""


@dataclass(slots=True, frozen=True)
class Sample:
    """The histories that every policy answers."""

    histories: tuple[tuple[Utterance, ...], ...]
    groups: tuple[str, ...]
    """The conversation of each, [histories]."""
    spoken: tuple[str, ...]
    """What was really said next, [histories]."""

    @property
    def digest(self) -> str:
        """SHA-256 (16 hex digits) of who said what."""
        said = [[(turn.speaker, turn.text) for turn in history] for history in self.histories]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


# --- which policies ----------------------------------------------------------------------------


def parse(given: str, registry: Registry) -> list[Policy]:
    """Policies by commas: `base`, `human`, an id of the registry or the start of one, the folder
    of an adapter; `NAME=…` before any of them is what tables call it.

    Raises:
        DataError: nothing, the same name twice, a name with odd characters, or a folder without
            an adapter.
        RegistryError: no such policy, or a damaged one.
    """
    found: list[Policy] = []
    for part in given.split(","):
        name, equals, what = part.strip().partition("=")
        policy = _policy(name if equals else "", (what if equals else name).strip(), registry)
        if any(policy.name == other.name for other in found):
            raise DataError(
                f"--policies: {policy.name} is there twice", "name one of them: NAME=POLICY"
            )
        found.append(policy)
    return found


def _policy(name: str, what: str, registry: Registry) -> Policy:
    if name and not re.fullmatch(r"\w[\w.+-]{0,40}", name):
        raise DataError(
            f"--policies: {name!r} is no name", "letters, digits and . + - _, 40 at most"
        )
    if not what:
        raise DataError("--policies: a policy without a name", "for example base,geli=p-2026…")
    if what in (BASE, HUMAN):
        return Policy(name or what, None, what)
    folder = Path(what).expanduser()
    if "/" in what or folder.is_dir():
        if missing := [file for file in ADAPTER if not (folder / file).is_file()]:
            raise DataError(f"{folder}: no {missing[0]} in it", "name the folder of an adapter")
        return Policy(name or folder.resolve().name, folder, str(folder))
    manifest = registry.verify(what)
    if manifest.kind != "policy":
        raise RegistryError(f"{manifest.id} is a reward, which cannot speak", "name a policy (p-…)")
    return Policy(name or manifest.id, registry.path(manifest.id), manifest.id)


# --- which histories ---------------------------------------------------------------------------


def held_out(data: Dataset, recorded: Path | None, seed: int) -> tuple[list[Dialogue], str]:
    """Dialogues that the reward was not trained on, and in words how that is known.

    Args:
        data: where histories are drawn from.
        recorded: `split.json` of the reward; its training and validation parts are left out.
        seed: of the split where nothing is recorded about this data.

    Raises:
        DataError: a damaged record, or nothing is held out.
    """
    used: set[str] = set()
    tested: set[str] = set()
    if recorded is not None and recorded.is_file():
        try:
            parts = json.loads(recorded.read_text(encoding="utf-8"))
            used = {i for part in ("train", "validation", "left_out") for i in parts[part]}
            tested = set(parts["test"])
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{recorded} is damaged", "train the reward again") from None
    if (used | tested) & {d.id for d in data.dialogues}:
        held = [d for d in data.dialogues if d.id not in used]
        how = "dialogues outside the reward's recorded training and validation parts"
    else:
        held = split(data.dialogues, seed).pick(data.dialogues, "test")
        how = (
            f"the test part of a split with seed {seed}; whether a policy was trained on it is "
            "not recorded here"
        )
    if not held:
        raise DataError(f"{data.source}: nothing is held out", "take another --data, or more of it")
    return held, how


def drawn(
    data: Dataset, reward: str, registry: Registry, seed: int, limit: int
) -> tuple[Sample, str]:
    """The histories that a comparison asks, and in words how they are known to be held out.

    Args:
        data: where they are drawn from.
        reward: what will score the replies, an id or a folder.
        registry: where ids are looked up.
        seed: of what is drawn.
        limit: at most this many.

    Raises: as `held_out` and `sample`; RegistryError: no such reward.
    """
    folder = Path(reward).expanduser()
    if not (folder / "reward.json").is_file():
        folder = registry.path(reward)
    held, how = held_out(data, folder / "split.json", seed)
    return sample(held, seed, limit), how


def sample(dialogues: Sequence[Dialogue], seed: int, limit: int) -> Sample:
    """The histories that `learning.policy.prompts.histories` draws, with where they come from.

    Args:
        dialogues: held-out ones.
        seed: of the order.
        limit: at most this many.

    Raises:
        DataError: there is nothing to answer.
    """
    from learning.policy.prompts import answered

    found = [
        (tuple(history), dialogue.id.partition("#")[0], reply)
        for dialogue in dialogues
        for history, reply in answered([dialogue])
    ]
    if not found:
        raise DataError("the held-out dialogues have nothing to answer", "take another --data")
    random.Random(seed).shuffle(found)
    histories, groups, spoken = zip(*found[:limit], strict=True)
    return Sample(histories, groups, spoken)
