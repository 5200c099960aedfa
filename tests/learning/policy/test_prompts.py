"""The training's prompt is the call's prompt; histories end where the agent is to answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import PAPER_PROMPT
from agent.history import History
from agent.records import Turn
from learning.dialogue import Dialogue, Utterance
from learning.errors import TrainingError
from learning.policy.prompts import Template, answered, histories, recent, tokenizer_of
from tests.learning.policy.small import dialogues, llama

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))


def said(*texts: str, first: str = "agent") -> list[Utterance]:
    other = "listener" if first == "agent" else "agent"
    return [
        Utterance(first if i % 2 == 0 else other, text)  # type: ignore[arg-type]
        for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    "history",
    [
        said("hi", first="listener"),
        said("hi . how are you ?", "great", "lovely", "so lovely"),
        [*said("hi", "a dog"), Utterance("listener", "my dog"), *said("great", "you ?")],
        [*said("a", "b"), Utterance("agent", ""), Utterance("listener", "c")],
    ],
    ids=["one turn", "the agent begins", "two turns of one side", "an empty turn"],
)
def test_the_prompt_is_what_the_live_call_gives_its_policy(
    place: Path, history: list[Utterance]
) -> None:
    tokenizer = tokenizer_of(place)
    template = Template(tokenizer, PAPER_PROMPT, 400)
    turns = [
        Turn(
            index=i,
            speaker="user" if turn.speaker == "listener" else "agent",
            start_s=float(i),
            end_s=float(i),
            text=turn.text,
        )
        for i, turn in enumerate(history)
    ]
    live = History(PAPER_PROMPT, 400, lambda text: len(text.split())).messages(turns)
    # As agent/engines/responder_transformers.py makes ids of messages.
    text = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in live],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert template.prompt(history) == tokenizer.encode(text, add_special_tokens=False)


def test_roles_alternate_as_llama_2_wants_them(place: Path) -> None:
    template = Template(tokenizer_of(place), "be kind", 200)
    history = [
        Utterance("agent", "hi"),
        Utterance("agent", "you ?"),
        Utterance("listener", "great"),
        Utterance("listener", "so great"),
    ]
    roles = [m["role"] for m in template.messages(history)]
    assert roles == ["system", "user", "assistant", "user"]
    assert template.messages(history)[3]["content"] == "great so great"


def test_a_long_dialogue_loses_its_oldest_turns_whole(place: Path) -> None:
    tokenizer = tokenizer_of(place)
    template = Template(tokenizer, "be kind", 60)
    history = said(*[f"dog {'lovely ' * (i % 5)}{w}" for i, w in enumerate("abcdefgh" * 40)])
    assert history[-1].speaker == "listener"
    fitted = template.fitted(history)
    assert fitted == history[-len(fitted) :]
    assert 1 < len(fitted) < len(history)
    assert len(template.prompt(history)) <= 60
    one_more = Template(tokenizer, "be kind", 10_000).prompt(history[-len(fitted) - 1 :])
    assert len(one_more) > 60  # nothing was dropped that had room


def test_a_last_turn_too_long_alone_keeps_its_end(place: Path) -> None:
    template = Template(tokenizer_of(place), "be kind", 40)
    history = [*said("hi", "you"), *said("so", "dog " * 500 + "lovely")]
    fitted = template.fitted(history)
    assert len(fitted) == 1
    assert history[-1].text.endswith(fitted[0].text)
    assert 25 < len(template.prompt(history)) <= 40


@pytest.mark.parametrize("budget", [40, 60, 61, 90, 10_000])
def test_recent_turns_make_the_prompt_of_the_whole_history(place: Path, budget: int) -> None:
    template = Template(tokenizer_of(place), "be kind", budget)
    texts = [f"{w} {'lovely ' * (i % 9)}" * (i % 4) for i, w in enumerate("abcdefgh" * 12)]
    for end in range(1, len(texts)):
        history = said(*texts[:end], first="listener" if end % 2 else "agent")
        kept = recent(history, budget)
        assert list(kept) == history[-len(kept) :]
        assert template.prompt(kept) == template.prompt(history)
        assert sum(len(turn.text.split()) for turn in kept[1:]) <= budget


def test_no_room_beside_the_system_prompt_is_said(place: Path) -> None:
    with pytest.raises(TrainingError, match="history_tokens = 20"):
        Template(tokenizer_of(place), "dog " * 30, 20)


def test_padding_is_not_what_ends_a_reply(place: Path) -> None:
    tokenizer = tokenizer_of(place)  # it was saved with pad = eos, as SmolLM2 is distributed
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.padding_side == "left"


def test_a_reply_ends_and_reads_as_it_was(place: Path) -> None:
    template = Template(tokenizer_of(place), "be kind", 60)
    ids = template.reply("so great tell me more", 20)
    assert ids[-1] in template.stops
    assert len(template.reply("dog " * 50, 20)) == 20
    assert template.text(ids) == "so great tell me more"


def test_histories_end_with_the_listener_where_the_policy_spoke_next() -> None:
    found = histories(dialogues(), 0)
    assert all(h[-1].speaker == "listener" for h in found)
    assert len(found) == len(answered(dialogues()))
    whole = {d.turns: d for d in dialogues()}
    for history in found:
        d = next(d for turns, d in whole.items() if turns[: len(history)] == history)
        assert d.turns[len(history)].speaker == "agent"


def test_what_the_program_said_is_answered_by_nobody() -> None:
    turns = (
        Utterance("agent", "hi", scored=False),
        Utterance("listener", "hello"),
        Utterance("agent", "are you still there ?", scored=False),
        Utterance("listener", "yes"),
        Utterance("agent", "good"),
        Utterance("agent", "and you ?"),
    )
    assert answered([Dialogue("a", turns, None)]) == [(turns[:4], "good")]


def test_order_is_the_seeds_and_the_limit_holds() -> None:
    data = dialogues()
    assert histories(data, 1) == histories(data, 1) != histories(data, 2)
    assert histories(data, 1, 3) == histories(data, 1)[:3]
    assert histories([], 0) == []
