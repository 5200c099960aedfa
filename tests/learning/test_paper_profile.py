"""configs/paper.toml and gpu.toml against the paper, value by value, each with its place there."""

from __future__ import annotations

from typing import Any

import pytest

from agent.config import PAPER_PROMPT, load
from learning.policy.memory import shape_of

pytestmark = pytest.mark.unit

PAPER: list[tuple[str, Any, str]] = [
    # key, value, where the paper says it
    (
        "reward.encoder",
        "bart-conversation-summary",
        "5.2, footnote 1: BART fine-tuned on summaries",
    ),
    ("reward.method", "rrd", "5.2, Table 1: RRD + VA (Ours)"),
    ("reward.shaping", "va", "4.2, eq. 7: visual affect"),
    ("reward.form", "sum", "4.1, eq. 3 and 4: R is the sum over t of r(s_t, a_t)"),
    ("reward.labels", "raw", "4.2, eq. 6 and 7: Γ is 1 or 0"),
    ("reward.subset", 32, "Table 1: RRD (K = 32)"),
    ("reward.learning_rate", 5e-6, "F, Reward Function Training: learning rate"),
    ("reward.batch_turns", 32, "F, Reward Function Training: batch size 32 (for LI)"),
    ("reward.batch_dialogues", 1, "F, Reward Function Training: batch size 1 (for GE)"),
    ("policy.algorithm", "ppo", "5.3: RLHF with PPO"),
    ("policy.batch", 24, "F, RLHF: batch size"),
    ("policy.clip", 0.2, "F, RLHF: clip range"),
    ("policy.learning_rate", 0.000014, "F, RLHF: learning rate"),
    ("policy.pretrain_weight", 0.05, "F, RLHF: gamma; C, eq. 10: γ"),
    ("policy.normalise_scores", True, "F, RLHF: use score norm"),
    ("policy.lora_r", 24, "F, Lora: r"),
    ("policy.lora_alpha", 48, "F, Lora: alpha"),
    ("policy.lora_dropout", 0.05, "F, Lora: dropout"),
    ("responder.model", "llama-2-7b-chat", "5.3: LLAMA-2; F: 7B parameters"),
    ("dialogue.system_prompt", PAPER_PROMPT, "Fig. 3: Prompt"),
    ("dialogue.max_words", 100, "Fig. 3: in under 100 words"),
    ("policy.max_words", 100, "Fig. 3: in under 100 words"),
    ("policy.length_penalty", 0.0, "eq. 10 has no penalty"),
    ("policy.repetition_penalty", 0.0, "eq. 10 has no penalty"),
    ("policy.unfinished_penalty", 0.0, "eq. 10 has no penalty"),
    ("perception.window_s", 2.0, "5.2, LI: 2 second sliding windows"),
]

TRL = [
    # What the paper leaves open and the PPOConfig of the TRL it used (0.4 to 0.7) has as default.
    ("policy.ppo_epochs", 4),
    ("policy.kl_coefficient", 0.2),
    ("policy.kl_target", 6.0),
    ("policy.gae_lambda", 0.95),
    ("policy.discount", 1.0),
    ("policy.value_clip", 0.2),
    ("policy.temperature", 1.0),
]


def value(profile: str, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(load(profile), section), name)


@pytest.mark.parametrize(("key", "wanted", "place"), PAPER, ids=[key for key, _, _ in PAPER])
def test_the_paper_profile_is_the_papers(key: str, wanted: Any, place: str) -> None:
    assert value("paper", key) == wanted, place


@pytest.mark.parametrize(("key", "wanted"), TRL, ids=[key for key, _ in TRL])
def test_what_the_paper_leaves_open_is_trls(key: str, wanted: Any) -> None:
    assert value("paper", key) == wanted


def test_once_through_the_papers_pairs() -> None:
    """5.1: about 100,000 history-utterance pairs to update the language model on."""
    config = load("paper")
    assert (config.policy.updates - 1) * 24 < 100_000 <= config.policy.updates * 24


def test_the_paper_counts_13m_trained_parameters() -> None:
    settings = load("paper").policy
    trained = shape_of("llama-2-7b-chat").lora(settings.lora_r, settings.target_modules)
    assert round(trained / 1e6) == 13  # F: "actual training parameters of 13M"


@pytest.mark.parametrize("profile", ["gpu", "paper"])
def test_what_a_7b_model_needs_is_on(profile: str) -> None:
    config = load(profile)
    assert config.policy.base is None and config.responder.model == "llama-2-7b-chat"
    for section in (config.policy, config.reward):
        assert section.device == "cuda" and section.precision == "bfloat16"
    assert config.policy.gradient_checkpointing and not config.policy.four_bit
    assert config.reward.trainable and config.reward.encoder == "bart-conversation-summary"
    for key in ("lora_r", "lora_alpha", "lora_dropout", "batch", "clip", "learning_rate"):
        assert value(profile, f"policy.{key}") == value("paper", f"policy.{key}")
    for devices in (1, 2, 4):  # micro-batches are dealt out alike
        assert (config.policy.batch / config.policy.micro_batch) % devices == 0
