"""One CANDOR conversation from its folder: who, what was said when, the ratings, the faces.

    <id>/metadata.json                                speakers: [{user_id, channel}, ...]
    <id>/survey.csv                                   one row a participant: user_id, overall_affect
    <id>/audio_video_features.csv                     a row a participant and second (optional)
    <id>/transcription/transcript_<backbiter|cliffhanger|audiophile>.csv

Column names are those of the corpus as public loaders read it (the GELI authors' own, BetterUp's
turn-taking scripts, ConvoKit). A folder is read whole or not at all: whatever cannot be understood
in a column that is used raises `Malformed`. Reasons never quote a cell.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from perception.affect import is_positive

Transcript = Literal["backbiter", "cliffhanger", "audiophile"]
Reading = Literal["probability", "category"]
"""What stood in the features: P(happy) of each second, or only the name of its emotion."""

METADATA = "metadata.json"
SURVEY = "survey.csv"
FEATURES = "audio_video_features.csv"

ACCEPTED: dict[str, tuple[str, ...]] = {
    "person": ("user_id", "participant_id"),
    "rating": ("overall_affect",),
    "speaker": ("speaker", "user_id"),
    "start": ("start", "start_time"),
    "stop": ("stop", "end", "stop_time", "end_time"),
    "utterance": ("utterance", "text"),
    "time": ("timedelta", "time", "seconds", "second"),
    "probability": ("prob_face_happiness", "prob_face_happy", "prob_happiness", "prob_happy"),
    "category": ("face_emotion", "emotion_face", "emotion"),
}
"""What a column means to its accepted names, the corpus's own first."""

OPTIONAL: tuple[str, ...] = (
    "turn_id",
    "interval",
    "delta",
    "questions",
    "end_question",
    "overlap",
    "n_words",
)
BACKCHANNELS: tuple[str, ...] = (
    "backchannel",
    "backchannel_count",
    "backchannel_speaker",
    "backchannel_start",
    "backchannel_stop",
)
"""Of backbiter only. Not read, but a result names them where they are missing."""

EMOTIONS = frozenset(
    "anger angry contempt disgust disgusted fear fearful happiness happy neutral sadness sad "
    "surprise surprised".split()
)
NO_FACE = frozenset({"", "none", "no_face", "unknown"})

_CLOCK = re.compile(r"(?:(\d{1,5}) days?,? )?(\d{1,5}):([0-5]\d):([0-5]\d(?:\.\d+)?)")


class Malformed(Exception):
    """A conversation that is not read.

    Args:
        kind: file and fault in words, the same for every conversation that has it.
        where: column and line, where there are some.
    """

    def __init__(self, kind: str, where: str = "") -> None:
        super().__init__(f"{kind} ({where})" if where else kind)
        self.kind = kind


@dataclass(slots=True, frozen=True)
class Turn:
    """One row of a transcript. Times in seconds from the recording's start."""

    speaker: str
    start_s: float
    stop_s: float
    text: str


@dataclass(slots=True)
class Face:
    """One participant's face: `times_s[i]` to one second later shows `positive[i]`. [seconds]"""

    times_s: list[float] = field(default_factory=list)
    positive: list[float | None] = field(default_factory=list)
    """P(happy), or 1 and 0 from a category; None where no face was seen."""


@dataclass(slots=True, frozen=True)
class Conversation:
    """What one folder holds."""

    id: str
    people: tuple[str, str]
    turns: list[Turn]
    """By start, none empty."""
    ratings: dict[str, float | None]
    """Each participant's own overall affect on the survey's scale."""
    faces: dict[str, Face]
    reading: Reading | None
    """None without a features file or without a face column in it."""
    end_s: float
    """Where the features stop: later seconds were not recorded. 0 without."""
    missing: tuple[str, ...]
    """Optional files and `file: column`s that are not there."""


def conversation(folder: Path, transcript: Transcript, scale: tuple[float, float]) -> Conversation:
    """Read one folder.

    Args:
        folder: named by the conversation's id.
        transcript: which of the three segmentations.
        scale: least and most that `overall_affect` can be.

    Raises:
        Malformed: anything missing that is needed, or not understood.
    """
    people = _people(folder / METADATA)
    turns, missing = _turns(
        folder / "transcription" / f"transcript_{transcript}.csv",
        people,
        OPTIONAL + BACKCHANNELS if transcript == "backbiter" else OPTIONAL,
    )
    ratings: dict[str, float | None] = dict.fromkeys(people)
    if (folder / SURVEY).exists():
        ratings |= _ratings(folder / SURVEY, people, scale)
    else:
        missing.append(SURVEY)
    faces: dict[str, Face] = {}
    reading: Reading | None = None
    if (folder / FEATURES).exists():
        faces, reading = _faces(folder / FEATURES, people)
        if reading is None:
            missing.append(f"{FEATURES}: a face column ({ACCEPTED['probability'][0]})")
        elif any(person not in faces for person in people):
            missing.append(f"{FEATURES}: rows of a participant")
    else:
        missing.append(FEATURES)
    end_s = max((face.times_s[-1] + 1.0 for face in faces.values()), default=0.0)
    return Conversation(folder.name, people, turns, ratings, faces, reading, end_s, tuple(missing))


def _people(path: Path) -> tuple[str, str]:
    try:
        speakers = json.loads(_text(path))["speakers"]
        ids = {str(speaker["user_id"] or "").strip() for speaker in speakers}
    except (ValueError, RecursionError):
        raise Malformed(f"{METADATA}: not JSON") from None
    except (KeyError, TypeError):
        raise Malformed(f"{METADATA}: no list of speakers with user_id") from None
    if len(speakers) != 2 or len(ids) != 2 or "" in ids:
        raise Malformed(f"{METADATA}: not exactly two speakers")
    first, second = sorted(ids)
    return first, second


def _turns(
    path: Path, people: tuple[str, str], optional: tuple[str, ...]
) -> tuple[list[Turn], list[str]]:
    table = _Table(path)
    speaker, start, stop, said = table.columns("speaker", "start", "stop", "utterance")
    turns = []
    for line, row in table.rows():
        turn = Turn(
            row[speaker].strip(),
            table.seconds(row[start], start, line),
            table.seconds(row[stop], stop, line),
            row[said].strip(),
        )
        if turn.speaker not in people:
            raise table.malformed("a speaker who is not in metadata.json", speaker, line)
        if turn.stop_s < turn.start_s:
            raise table.malformed("a turn stops before it starts", stop, line)
        if turn.text:
            turns.append(turn)
    if not turns:
        raise Malformed(f"{path.name}: no utterance")
    if len({turn.speaker for turn in turns}) != 2:
        raise Malformed(f"{path.name}: only one of the two speaks")
    missing = [f"{path.name}: {name}" for name in optional if name not in table.header]
    return sorted(turns, key=lambda turn: turn.start_s), missing


def _ratings(
    path: Path, people: tuple[str, str], scale: tuple[float, float]
) -> dict[str, float | None]:
    table = _Table(path)
    person, rating = table.columns("person", "rating")
    out: dict[str, float | None] = {}
    for line, row in table.rows():
        who = row[person].strip()
        if who not in people:
            continue
        if who in out:
            raise table.malformed("a participant answers twice", person, line)
        value = table.number(row[rating], rating, line) if row[rating].strip() else None
        if value is not None and not scale[0] <= value <= scale[1]:
            said = f"a rating outside {scale[0]:g} to {scale[1]:g}"
            raise table.malformed(said, rating, line)
        out[who] = value
    return out


def _faces(path: Path, people: tuple[str, str]) -> tuple[dict[str, Face], Reading | None]:
    table = _Table(path)
    person, time = table.columns("person", "time")
    probability, category = table.column("probability"), table.column("category")
    column = probability or category
    if column is None:
        return {}, None
    seen: dict[str, list[tuple[float, float | None]]] = {}
    for line, row in table.rows():
        who = row[person].strip()
        if who not in people:
            continue
        time_s = table.seconds(row[time], time, line)
        if probability is None:
            value = table.emotion(row[column], column, line)
        else:
            value = table.probability(row[column], column, line)
        seen.setdefault(who, []).append((time_s, value))
    faces = {}
    for who, rows in seen.items():
        rows.sort(key=lambda row: row[0])
        faces[who] = Face([time_s for time_s, _ in rows], [value for _, value in rows])
    return faces, "probability" if probability else "category"


class _Table:
    """A CSV file whose every fault is a `Malformed` with the file's name."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        # strict: a quote that is never closed is a file cut short, not one long last cell.
        text = io.StringIO(_text(path), newline="")
        self._reader = csv.DictReader(text, strict=True)
        try:
            self.header: list[str] = list(self._reader.fieldnames or ())
        except csv.Error:
            raise Malformed(f"{self.name}: not CSV") from None
        if not self.header:
            raise Malformed(f"{self.name}: empty")

    def column(self, meaning: str) -> str | None:
        """The name this file has for it."""
        return next((name for name in ACCEPTED[meaning] if name in self.header), None)

    def columns(self, *meanings: str) -> list[str]:
        found = [(meaning, self.column(meaning)) for meaning in meanings]
        if lacking := [ACCEPTED[meaning][0] for meaning, name in found if name is None]:
            raise Malformed(f"{self.name}: wrong header", f"no {', '.join(lacking)}")
        names = [name for _, name in found if name is not None]
        if doubled := [name for name in names if self.header.count(name) > 1]:
            raise Malformed(f"{self.name}: wrong header", f"{doubled[0]} twice")
        return names

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Line of the file and the row, every cell there."""
        last = self.header[-1]
        try:
            for row in self._reader:
                line = self._reader.line_num
                if None in row or row[last] is None:
                    raise Malformed(
                        f"{self.name}: a row has too few or too many cells", f"line {line}"
                    )
                yield line, row
        except csv.Error:
            raise Malformed(
                f"{self.name}: not CSV", f"line {self._reader.reader.line_num}"
            ) from None

    def malformed(self, said: str, column: str, line: int) -> Malformed:
        return Malformed(f"{self.name}: {said}", f"column {column}, line {line}")

    def number(self, cell: str, column: str, line: int) -> float:
        try:
            value = float(cell)
        except ValueError:
            raise self.malformed("a value is not a number", column, line) from None
        if not math.isfinite(value):
            raise self.malformed("a value is not finite", column, line)
        return value

    def seconds(self, cell: str, column: str, line: int) -> float:
        """Seconds, or a timedelta as pandas prints it: `00:01:02`, `0 days 00:01:02.5`."""
        if clock := _CLOCK.fullmatch(cell.strip()):
            days, hours, minutes, seconds = clock.groups()
            return ((int(days or 0) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)
        value = self.number(cell, column, line)
        if value < 0:
            raise self.malformed("a time is below zero", column, line)
        return value

    def probability(self, cell: str, column: str, line: int) -> float | None:
        if not cell or cell.isspace():
            return None
        value = self.number(cell, column, line)
        if not 0 <= value <= 1:
            raise self.malformed("a probability outside 0 to 1", column, line)
        return value

    def emotion(self, cell: str, column: str, line: int) -> float | None:
        name = cell.strip().lower()
        if name in NO_FACE:
            return None
        if name not in EMOTIONS:
            raise self.malformed("an emotion that is not known", column, line)
        return float(is_positive(name))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise Malformed(f"{path.name}: not there") from None
    except UnicodeDecodeError:
        raise Malformed(f"{path.name}: not UTF-8 text") from None
    except OSError:
        raise Malformed(f"{path.name}: cannot be read") from None
