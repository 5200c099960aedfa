"""From a dialogue to the tokens that a policy reads: the same prompt that it reads in a live call.

System prompt, then the turns as chat messages, cut on the left by whole turns. A call cuts less
often and deeper (agent/history.py) so that its attention cache lives; the template is the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.history import OPENING
from learning.dialogue import Dialogue, Utterance
from learning.errors import TrainingError

STOPS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>", "<|im_start|>")
"""Tokens that end a reply beside the tokenizer's own, where it has them (as in a live call)."""
PADS = ("<|endoftext|>", "<pad>", "<unk>")
"""What pads, in this order, where the tokenizer pads with what ends a reply, or with nothing."""
TURN_TOKENS = 12
"""A chat template adds fewer than this to a turn."""

History = Sequence[Utterance]


class Template:
    """One model's chat template, and how much of a dialogue goes into it.

    Args:
        tokenizer: with a chat template.
        system_prompt: as in the call.
        history_tokens: the whole prompt at most, system prompt and template included.

    Raises:
        TrainingError: the tokenizer has no chat template, or the budget has no room for a turn.
    """

    def __init__(self, tokenizer: Any, system_prompt: str, history_tokens: int) -> None:
        if not tokenizer.chat_template:
            raise TrainingError(
                "the base model's tokenizer has no chat template", "choose a chat model"
            )
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        self.budget = history_tokens
        ends = (tokenizer.convert_tokens_to_ids(token) for token in STOPS)
        self.stops = {i for i in ends if i is not None and i != tokenizer.unk_token_id}
        self.stops.add(tokenizer.eos_token_id)
        if (bare := len(self._ids([]))) + 8 > history_tokens:
            raise TrainingError(
                f"policy.history_tokens = {history_tokens} leaves no room beside the system prompt "
                f"({bare} tokens)",
                f"at least {bare + 8}",
            )

    def messages(self, history: History) -> list[dict[str, str]]:
        """The chat: roles alternate, turns of one side in a row are one message."""
        chat: list[dict[str, str]] = []
        for turn in history:
            role = "user" if turn.speaker == "listener" else "assistant"
            if not turn.text:
                continue
            if chat and chat[-1]["role"] == role:
                chat[-1] = {"role": role, "content": f"{chat[-1]['content']} {turn.text}"}
            else:
                chat.append({"role": role, "content": turn.text})
        if chat and chat[0]["role"] == "assistant":
            chat.insert(0, {"role": "user", "content": OPENING.content})
        return [{"role": "system", "content": self.system_prompt}, *chat]

    def prompt(self, history: History) -> list[int]:
        """Token ids up to where the reply begins, at most the budget."""
        return self._ids(self.fitted(history))

    def fitted(self, history: History) -> list[Utterance]:
        """What of a history goes into the budget.

        The oldest turns go first, whole; of a last turn that is too long alone, its first words.
        """
        history = list(history)
        while len(ids := self._ids(history)) > self.budget and len(history) > 1:
            over = len(ids) - self.budget
            while over > 0 and len(history) > 1:  # one rendering for many turns of a long dialogue
                over -= self._count(history.pop(0).text) + TURN_TOKENS
        while len(ids) > self.budget:
            words = history[-1].text.split()
            share = max(1, round(len(words) * (len(ids) - self.budget) / len(ids)))
            if len(words) <= share:  # one word of endless letters
                history = [Utterance("listener", history[-1].text[len(history[-1].text) // 2 :])]
            else:
                history = [Utterance("listener", " ".join(words[share:]))]
            ids = self._ids(history)
        return history

    def _ids(self, history: History) -> list[int]:
        text = self.tokenizer.apply_chat_template(
            self.messages(history), add_generation_prompt=True, tokenize=False
        )
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _count(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def reply(self, text: str, limit: int) -> list[int]:
        """Token ids of a reply with the token that ends it; cut, it has none.

        Args:
            text: the reply.
            limit: tokens at most, the ending one included.
        """
        ids = [*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id]
        return ids[:limit]

    def text(self, ids: Sequence[int]) -> str:
        """What a reply says, without the token that ends it."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def recent(history: History, tokens: int) -> tuple[Utterance, ...]:
    """The last turns, as many as a prompt of so many tokens can hold: a word is one at least."""
    start, words = len(history), 0
    while start and words <= tokens:
        start -= 1
        words += len(history[start].text.split())
    return tuple(history[start:])


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer of a model's folder, with a padding token that ends nothing.

    Raises:
        TrainingError: it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{folder}: no tokenizer that can be read: {type(error).__name__}",
            "geli models verify",
        ) from None
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        known = (t for t in PADS if t in tokenizer.get_vocab() and t != tokenizer.eos_token)
        if (pad := next(known, None)) is None:
            raise TrainingError(f"{folder}: its tokenizer has nothing to pad with")
        tokenizer.pad_token = pad
    tokenizer.padding_side = "left"
    return tokenizer


def answered(dialogues: Sequence[Dialogue]) -> list[tuple[History, str]]:
    """Every history that ends with the listener and what the agent really said after it.

    Turns of the agent that are not scored (the program spoke them) are answered by nobody.
    """
    return [
        (d.turns[:i], d.turns[i].text)
        for d in dialogues
        for i in range(1, len(d.turns))
        if d.turns[i].speaker == "agent"
        and d.turns[i].scored
        and d.turns[i - 1].speaker == "listener"
        and d.turns[i - 1].text.strip()
    ]


def histories(
    dialogues: Sequence[Dialogue], seed: int, limit: int | None = None
) -> list[tuple[Utterance, ...]]:
    """Histories for a policy to answer, in random order, without replacement.

    Args:
        dialogues: their agent's turns are what will be written anew.
        seed: of the order.
        limit: at most this many.
    """
    found = [tuple(history) for history, _ in answered(dialogues)]
    random.Random(seed).shuffle(found)
    return found[:limit]
