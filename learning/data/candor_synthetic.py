"""Small synthetic conversations in CANDOR's layout, without media.

A layout generator for tests and demonstrations, not data to draw conclusions from: a few dozen
sentences, and ratings and faces that follow them by a rule written below. `simulated` is the source
whose assumptions are meant to be studied.
"""

from __future__ import annotations

import csv
import io
import json
import random
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from learning.data.candor_files import BACKCHANNELS, FEATURES, METADATA, OPTIONAL, SURVEY
from learning.errors import DataError

SENTENCES = {
    1: (
        "That is wonderful, I am so happy for you.",
        "I really love how you tell that story.",
        "What a great idea, thank you for sharing it.",
        "You made me laugh, that was brilliant.",
        "I had a lovely day and talking to you makes it better.",
        "Your garden sounds beautiful.",
    ),
    0: (
        "I moved here about two years ago.",
        "We usually cook at home during the week.",
        "What do you do for work?",
        "My brother lives in Ohio with his two kids.",
        "I take the bus when it rains.",
        "So how did you hear about this study?",
    ),
    -1: (
        "Honestly that sounds boring and a bit stupid.",
        "I hate my job and everything about it.",
        "This whole year was terrible for us.",
        "You are wrong about that, sorry.",
        "It was a horrible trip and I was angry all day.",
        "I don't like talking about this, it is sad.",
    ),
}
"""Sentiment to what is said with it."""
BACKCHANNEL = ("Mhm.", "Yeah.", "Right.", "Oh wow.")
OTHER_FACES = ("anger", "contempt", "disgust", "fear", "neutral", "sadness", "surprise")


@dataclass(slots=True, frozen=True)
class _Said:
    """One piece of speech, as audiophile has it."""

    turn: int
    speaker: str
    start_s: float
    stop_s: float
    text: str
    sentiment: int
    backchannel: bool = False


def write(directory: Path, conversations: int, seed: int, turns: int = 40) -> None:
    """Write `conversations` folders; the same arguments give the same bytes.

    In each, both people have a mood that colours what they say. The listener's P(happy) rises and
    falls with what the other says, a rating (1 to 9, some left empty) with the mean of it.

    Args:
        directory: new or empty.
        conversations: how many; people take part in about two each.
        seed: of all chance.
        turns: of both people together, in each conversation (backchannels apart); at least 2.

    Raises:
        DataError: the directory holds something, or fewer than 2 turns were asked for.
    """
    if turns < 2:
        raise DataError(f"{turns} turns are no conversation", "ask for at least 2")
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise DataError(f"{directory}: not empty", "give a new directory")
    rng = random.Random(seed)
    people = [f"{rng.getrandbits(96):024x}" for _ in range(max(2, conversations))]
    for _ in range(conversations):
        name = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        _write_conversation(directory / name, rng.sample(people, 2), rng, turns)


def _write_conversation(
    folder: Path, people: Sequence[str], rng: random.Random, turns: int
) -> None:
    said = _talk(people, rng, turns)
    (folder / "transcription").mkdir(parents=True)
    metadata = {
        "id": folder.name,
        "speakers": [
            {"user_id": person, "channel": side} for person, side in zip(people, "LR", strict=True)
        ],
    }
    _put(folder / METADATA, json.dumps(metadata, indent=2) + "\n")
    _put_table(
        folder / SURVEY,
        ("user_id", "convo_id", "overall_affect"),
        _survey(folder.name, people, said, rng),
    )
    _put_table(
        folder / FEATURES,
        ("", "user_id", "timedelta", "is_speaking", "prob_face_happiness")
        + tuple(f"prob_face_{name}" for name in OTHER_FACES),
        _features(people, said, rng),
    )
    merged = _merged(said)
    transcripts = {
        "audiophile": said,
        "cliffhanger": merged,
        "backbiter": [it for it in merged if not it.backchannel],
    }
    for name, rows in transcripts.items():
        columns = ("turn_id", "speaker", "start", "stop", "utterance", *OPTIONAL[1:])
        if name == "backbiter":
            columns += BACKCHANNELS
        table = _transcript(rows, [it for it in merged if it.backchannel], name == "backbiter")
        _put_table(folder / "transcription" / f"transcript_{name}.csv", columns, table)


def _talk(people: Sequence[str], rng: random.Random, turns: int) -> list[_Said]:
    """Turn by turn, each of one to three sentences with a pause between; some get a backchannel."""
    mood = {person: rng.gauss(0.0, 0.35) for person in people}
    said: list[_Said] = []
    now_s = rng.uniform(1.0, 4.0)
    for turn in range(turns):
        speaker, other = people[turn % 2], people[1 - turn % 2]
        for _ in range(rng.choice((1, 1, 2, 3))):
            chance = rng.gauss(mood[speaker], 0.7)
            sentiment = 1 if chance > 0.5 else -1 if chance < -0.5 else 0
            text = rng.choice(SENTENCES[sentiment])
            stop_s = now_s + 0.35 * len(text.split())
            said.append(_Said(turn, speaker, round(now_s, 2), round(stop_s, 2), text, sentiment))
            now_s = stop_s + rng.uniform(0.1, 0.6)
        last = said[-1]
        if rng.random() < 0.2:
            at_s = round(rng.uniform(last.start_s, last.stop_s - 0.3), 2)
            said.append(
                _Said(turn, other, at_s, round(at_s + 0.3, 2), rng.choice(BACKCHANNEL), 0, True)
            )
        now_s += rng.uniform(0.0, 1.5)
    return sorted(said, key=lambda it: it.start_s)


def _merged(said: Iterable[_Said]) -> list[_Said]:
    """One row for each turn and one for each backchannel."""
    out: dict[tuple[int, str], _Said] = {}
    for it in said:
        before = out.get((it.turn, it.speaker))
        if before is None:
            out[it.turn, it.speaker] = it
        else:
            out[it.turn, it.speaker] = _Said(
                it.turn,
                it.speaker,
                before.start_s,
                it.stop_s,
                f"{before.text} {it.text}",
                before.sentiment + it.sentiment,
            )
    return sorted(out.values(), key=lambda it: it.start_s)


def _survey(
    name: str, people: Sequence[str], said: Sequence[_Said], rng: random.Random
) -> list[list[str]]:
    rows = []
    for person in people:
        heard = [it.sentiment for it in said if it.speaker != person and not it.backchannel]
        felt = 6.5 + 4.0 * sum(heard) / len(heard) + rng.gauss(0.0, 1.0)
        answered = rng.random() >= 0.05
        rows.append([person, name, str(min(max(round(felt), 1), 9)) if answered else ""])
    return rows


def _features(
    people: Sequence[str], said: Sequence[_Said], rng: random.Random
) -> Iterable[list[str]]:
    """A row a person and second: out of the picture at times, else smiling at what they hear."""
    seconds = int(max(it.stop_s for it in said)) + 8
    for person in people:
        heard = [(it.start_s, it.sentiment) for it in said if it.speaker != person]
        spoken = [(it.start_s, it.stop_s) for it in said if it.speaker == person]
        at, feeling, away = 0, 0.0, False
        for second in range(seconds):
            while at < len(heard) and heard[at][0] <= second:
                feeling = 0.3 * feeling + heard[at][1]
                at += 1
            away = rng.random() < (0.7 if away else 0.02)
            happy = min(max(0.4 + 0.25 * feeling + rng.gauss(0.0, 0.15), 0.0), 1.0)
            neutral = 0.8 * (1.0 - happy)
            rest = (1.0 - happy - neutral) / (len(OTHER_FACES) - 1)
            shown = [happy] + [neutral if name == "neutral" else rest for name in OTHER_FACES]
            while spoken and spoken[0][1] < second:
                spoken.pop(0)
            speaks = bool(spoken) and spoken[0][0] < second + 1
            clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
            yield [
                str(second),
                person,
                clock,
                str(speaks),
                *("" if away else f"{p:.4f}" for p in shown),
            ]


def _transcript(
    rows: Sequence[_Said], backchannels: Sequence[_Said], backbiter: bool
) -> Iterable[list[str]]:
    of_turn = {it.turn: it for it in backchannels}
    before_s: float | None = None
    for i, it in enumerate(rows):
        gap = "" if before_s is None else f"{it.start_s - before_s:.2f}"
        row = [
            str(i),
            it.speaker,
            f"{it.start_s:.2f}",
            f"{it.stop_s:.2f}",
            it.text,
            gap,
            f"{it.stop_s - it.start_s:.2f}",
            str(it.text.count("?")),
            str(it.text.endswith("?")),
            str(before_s is not None and it.start_s < before_s),
            str(len(it.text.split())),
        ]
        if backbiter:
            heard = of_turn.get(it.turn)
            row += (
                [heard.text, "1", heard.speaker, f"{heard.start_s:.2f}", f"{heard.stop_s:.2f}"]
                if heard
                else ["", "0", "", "", ""]
            )
        before_s = it.stop_s
        yield row


def _put_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    _put(path, text.getvalue())


def _put(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))
