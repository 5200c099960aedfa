"""A tiny LLaMA with random weights, its tokenizer and chat template; a scorer of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from learning.dialogue import Dialogue, Utterance

WORDS = (
    "i you we love hate the dog garden work day is was great awful boring lovely how are tell me "
    "more about that sounds really nothing happened today hi . , ? ! a so glad what my and"
).split()
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} : {{ m['content'] }} <|im_end|> "
    "{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant : {% endif %}"
)


def llama(folder: Path, *, seed: int = 0, layers: int = 2, dim: int = 32) -> Path:
    """A folder in the Hugging Face layout: grouped-query attention, tied embeddings."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"]
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.WordPiece(prefix="##")
    roles = ["system", "user", "assistant", ":"]
    made.train_from_iterator(
        [" ".join([*WORDS, *roles])], trainers.WordLevelTrainer(special_tokens=special)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",  # as in SmolLM2's GGUF: what ends also pads
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def dialogues(n: int = 6, turns: int = 7) -> list[Dialogue]:
    """Small talk that begins with the agent, of different lengths."""
    import random

    rng = random.Random(1)

    def said(i: int, t: int) -> Utterance:
        text = " ".join(rng.choices(WORDS, k=rng.randint(2, 9)))
        return Utterance("listener" if t % 2 else "agent", text, scored=t > 0)

    return [
        Dialogue(str(i), tuple(said(i, t) for t in range(turns + i % 3)), 50.0) for i in range(n)
    ]


class CountsWord:
    """Ten points for each time a reply says a word, up to a hundred."""

    id = "counts"

    def __init__(self, word: str = "dog") -> None:
        self.word = word

    def score(
        self, histories: Sequence[Sequence[Utterance]], replies: Sequence[str]
    ) -> list[float]:
        assert all(h[-1].speaker == "listener" for h in histories)
        return [min(100.0, 10.0 * reply.split().count(self.word)) for reply in replies]


def plain() -> list[str]:
    """Settings that take back what the embedded profile changes of `[policy]`."""
    import json
    import tomllib

    from agent.config import profiles
    from agent.learning_config import Policy

    profile = tomllib.loads(profiles()["cpu"].read_text(encoding="utf-8"))
    return [f"policy.{k}={json.dumps(getattr(Policy(), k))}" for k in profile["policy"]]
