"""CANDOR (Reece et al., 2023): two strangers on a video call, each rating it afterwards.

Every conversation gives two dialogues. In `<conversation>#<user_id>` that participant is the
listener, whose survey answer is the rating and whose face gives the labels; the other one is the
agent, and all the agent's turns are scored.

The label of an agent turn (Γ, paper eq. 7) is read from the listener's face, second by second, from
the turn's start to the start of the listener's next turn, at most `max_after_s` after its end. With
a face in fewer than half of these seconds it is unknown; else it is 1 where the mean P(happy) over
the seconds with a face is at least `positive_threshold`. (The authors' published loader takes the
most frequent emotion *while* the turn is spoken, and counts a missing face as neutral.)

Where `geli learn corpus affect` has read the videos, its windows are used instead, with the rule of
live calls (`agent.labels`, `[labels]`): windows of a participant whose video could not be read are
unknown, never filled in from the corpus's features. Video and transcript are taken to start
together, as the corpus's processed files do.

`overall_affect` is kept in the corpus as a number of at most 10: the authors' loader multiplies it
by 10 for the 0 to 100 of their tables. So does this one. The corpus itself could not be had when
this was written, so that a number above 10 is refused, not guessed at.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from agent.config import Labels
from agent.labels import rule_name
from learning.data.candor_files import (
    FEATURES,
    METADATA,
    SURVEY,
    Conversation,
    Face,
    Malformed,
    Reading,
    Transcript,
    Turn,
    conversation,
)
from learning.data.candor_windows import AFFECT, Read, Watched
from learning.dialogue import Dataset, Dialogue, Li, Utterance
from learning.errors import DataError

SCALE = (0.0, 10.0)
POSITIVE_THRESHOLD = 0.5
MIN_COVERAGE = 0.5
"""Share of a label's seconds that must show a face."""
LISTED = 20
"""Malformed conversations that the notes name one by one."""


def load(
    directory: Path,
    transcript: Transcript = "backbiter",
    *,
    positive_threshold: float = POSITIVE_THRESHOLD,
    max_after_s: float = 10.0,
    scale: tuple[float, float] = SCALE,
    affect: str | None = None,
    labels: Labels | None = None,
) -> Dataset:
    """Read a folder of conversations.

    `dropped` counts conversations, not dialogues: what is in a malformed one is not known.

    Args:
        directory: holds one folder a conversation, or folders of such folders (`no_media_1/…`).
        transcript: how speech was cut into turns; see the corpus's paper.
        positive_threshold: least mean P(happy) of a positive label.
        max_after_s: how long after a turn the listener's face still belongs to it.
        scale: least and most that `overall_affect` can be in these files; it becomes 0 to 100.
        affect: folder or URL of affect windows; None: `geli-affect` in the directory, if it is
            there.
        labels: rule of labels from affect windows (`[labels]`).

    Raises:
        DataError: no such directory, no conversation in it that can be read, or no affect windows
            where they were asked for.
    """
    watched = Read.of(directory, affect, labels or Labels())
    dialogues, malformed, notes = read(
        directory,
        transcript,
        positive_threshold=positive_threshold,
        max_after_s=max_after_s,
        scale=scale,
        watched=watched,
    )
    dropped = Counter(kind_of(reason) for _, reason in malformed)
    if not dialogues:
        reasons = "; ".join(f"{why} ({n})" for why, n in dropped.most_common(3))
        raise DataError(
            f"{directory}: none of {len(malformed)} conversations can be read: {reasons}",
            f"each needs {METADATA}, {SURVEY} and transcription/transcript_{transcript}.csv as "
            "the corpus has them",
        )
    return Dataset(
        source=f"candor:{directory}" + ("" if transcript == "backbiter" else f"@{transcript}"),
        dialogues=tuple(dialogues),
        li_source=(
            f"listener's face (CANDOR features, P(happy) >= {positive_threshold:g})"
            if watched is None
            else f"listener's face (affect windows by {watched.classifier}; "
            f"{rule_name(watched.labels)})"
        ),
        scale=scale,
        dropped=dict(sorted(dropped.items())),
        notes=tuple(notes),
    )


def kind_of(reason: str) -> str:
    """A malformed conversation's reason without column and line, so that it can be counted."""
    return reason.partition(" (")[0]


def read(
    directory: Path,
    transcript: Transcript = "backbiter",
    *,
    positive_threshold: float = POSITIVE_THRESHOLD,
    max_after_s: float = 10.0,
    scale: tuple[float, float] = SCALE,
    watched: Read | None = None,
) -> tuple[list[Dialogue], list[tuple[str, str]], list[str]]:
    """The dialogues by id, (conversation id, reason) of each malformed one, and notes.

    Args: as in `load`; `watched` are the affect windows that labels are read from.

    Raises:
        DataError: no such directory, or no folder in it.
    """
    dialogues: list[Dialogue] = []
    malformed: list[tuple[str, str]] = []
    missing: Counter[str] = Counter()
    readings: Counter[Reading] = Counter()
    known: set[str] = set()
    unwatched = 0
    for folder in _folders(directory):
        try:
            if folder.name in known:
                raise Malformed("the same conversation is in two folders")
            known.add(folder.name)
            talk = conversation(folder, transcript, scale)
        except Malformed as error:
            malformed.append((folder.name, str(error)))
            continue
        missing.update(talk.missing)
        if talk.reading:
            readings[talk.reading] += 1
        first, second = talk.people
        for agent, listener in ((second, first), (first, second)):
            face = watched.of_listener(talk.id, listener) if watched is not None else None
            unwatched += watched is not None and face is None
            dialogues.append(
                _dialogue(
                    talk, agent, listener, positive_threshold, max_after_s, scale,
                    face if watched is not None else talk.faces.get(listener),
                )
            )  # fmt: skip
    whole = len(dialogues) // 2
    notes = [f"overall_affect was given on {scale[0]:g} to {scale[1]:g}"]
    notes += [f"missing in {n} of {whole} conversations: {it}" for it, n in sorted(missing.items())]
    if unwatched:
        notes.append(f"no affect windows of {unwatched} of {2 * whole} listeners")
    if watched is None and (categories := readings["category"]):
        notes.append(
            f"{FEATURES}: only an emotion's name, no P(happy), in {categories} of {whole} "
            "conversations: happy seconds count as 1"
        )
    notes += [f"skipped {name}: {reason}" for name, reason in malformed[:LISTED]]
    if len(malformed) > LISTED:
        notes.append(f"skipped {len(malformed) - LISTED} more")
    return dialogues, malformed, notes


def _folders(directory: Path) -> list[Path]:
    """Conversation folders by name. One level of folders between is looked into."""
    found: list[Path] = []
    try:
        if not directory.is_dir():
            raise DataError(
                f"{directory}: no such directory", "give the folder of the CANDOR corpus"
            )
        if _has_files(directory):
            above = directory.absolute().parent
            raise DataError(f"{directory}: is one conversation", f"give the folder above, {above}")
        for folder in _subfolders(directory):
            inner = [] if _has_files(folder) else _subfolders(folder)
            found += inner if any(_has_files(f) for f in inner) else [folder]
    except OSError as error:
        raise DataError(
            f"{directory}: cannot be listed: {error.strerror}", "check who may read it"
        ) from None
    if not found:
        raise DataError(
            f"{directory}: holds no conversation", "it needs one folder for each conversation id"
        )
    return sorted(found, key=lambda folder: (folder.name, str(folder)))


def _has_files(folder: Path) -> bool:
    """Whether any file of a conversation is in it, so that a broken one is named, not passed by."""
    return any((folder / name).exists() for name in (METADATA, SURVEY, FEATURES, "transcription"))


def _subfolders(folder: Path) -> list[Path]:
    return [
        f
        for f in sorted(folder.iterdir())
        if f.is_dir() and not f.name.startswith(".") and f.name != AFFECT
    ]


def _dialogue(
    talk: Conversation,
    agent: str,
    listener: str,
    positive_threshold: float,
    max_after_s: float,
    scale: tuple[float, float],
    face: Face | Watched | None,
) -> Dialogue:
    """The conversation as `listener`, whose face this is, took it. Ratings become 0 to 100."""
    starts = [turn.start_s for turn in talk.turns if turn.speaker == listener]
    utterances = []
    for turn in talk.turns:
        if turn.speaker == listener:
            utterances.append(Utterance("listener", turn.text, scored=False))
            continue
        li: Li = None
        if isinstance(face, Watched):
            li = face.label(turn, starts)
        elif face is not None:
            until_s = min(_next(starts, turn), turn.stop_s + max_after_s, talk.end_s)
            li = _label(face, turn.start_s, until_s, positive_threshold)
        utterances.append(Utterance("agent", turn.text, li=li))
    given = talk.ratings[listener]
    low, high = scale
    return Dialogue(
        id=f"{talk.id}#{listener}",
        turns=tuple(utterances),
        rating=None if given is None else 100.0 * (given - low) / (high - low),
        people=(agent, listener),
    )


def _next(starts: list[float], turn: Turn) -> float:
    """When the listener next begins to speak; who begins together has nothing to react to yet."""
    i = bisect_right(starts, turn.start_s)
    return starts[i] if i < len(starts) else math.inf


def _label(face: Face, start_s: float, until_s: float, positive_threshold: float) -> Li:
    """Γ over the seconds that [start_s, until_s) touches; one without a row shows no face."""
    first_s = math.floor(start_s)
    seconds = math.ceil(until_s) - first_s
    if until_s <= start_s:
        return None
    rows = range(bisect_left(face.times_s, first_s), bisect_left(face.times_s, until_s))
    seen = {math.floor(face.times_s[i]) for i in rows if face.positive[i] is not None}
    if len(seen) < MIN_COVERAGE * seconds:
        return None
    return 1 if _mean(face.positive[i] for i in rows) >= positive_threshold else 0


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known)
