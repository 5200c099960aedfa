"""The sections of the configuration that learning reads. The live call reads `[rollout]` only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reward(_Section):
    """The reward function r_θ and how it is trained (paper section 4)."""

    encoder: str = "minilm-l6-v2"
    """Weights by name: any encoder or encoder-decoder of transformers."""
    trainable: bool = False
    """Fine-tune the encoder; else its features are computed once and kept."""
    max_tokens: int = Field(256, ge=16)
    """Fine-tuned: history and utterance together, cut on the left."""
    history_decay: Share = 0.7
    """Frozen: weight of each earlier turn in the history's feature, relative to the next one."""
    components: int = Field(16, ge=1)
    """Frozen: principal components kept of each of its vectors (chosen on validation parts of
    chitchat: 8 to 16 did equally well, 64 clearly worse)."""
    hidden: int = Field(128, ge=1)
    dropout: Share = 0.4
    method: Literal["mean", "mode", "ircr", "rudder", "rrd"] = "rrd"
    shaping: Literal["none", "va", "ls"] = "va"
    lambda_ge: Share = 0.3
    """λ of equation 2: the weight of L_GE beside L_LI."""
    subset: int = Field(32, ge=0)
    """K of RRD: turns drawn from each dialogue; 0 takes them all."""
    unbiased: bool = False
    """RRD: the product of two subsets' errors, without the variance term of a squared one."""
    form: Literal["mean", "sum"] = "mean"
    """R is the mean of r_θ over the turns (dialogues of any length compare), or, as the paper has
    it, the sum."""
    labels: Literal["calibrated", "centred", "raw"] = "calibrated"
    """Γ against r_θ: through a fitted line (the face says which turns are better, the rating how
    much), standardised to the reward's own scale, or 0 and 1 as they are (the paper)."""
    ls_threshold: float = Field(0.05, ge=-1, le=1)
    """Sentiment above which language counts as positive."""
    learning_rate: Positive = 1e-3
    """The paper: 5e-6, for BART fine-tuned whole."""
    weight_decay: float = Field(0.01, ge=0)
    batch_dialogues: int = Field(16, ge=1)
    """Trajectories in one L_GE step (the paper: 1)."""
    batch_turns: int = Field(256, ge=1)
    """Labelled turns in one L_LI step (the paper: 32)."""
    micro_batch: int = Field(8, ge=1)
    """Fine-tuned: turns in one pass of the encoder. Several processes share a batch by these."""
    epochs: int = Field(40, ge=1)
    patience: int = Field(8, ge=1)
    """Epochs without a better validation loss before it stops."""
    seed: int = 0
    device: Device = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of a fine-tuned encoder's passes (autocast)."""


class Policy(_Section):
    """LoRA and reinforcement learning (paper section 5.3 and eq. 10)."""

    base: str | None = None
    """Weights by name; default: what `[responder]` speaks with."""
    algorithm: Literal["ppo", "trl-ppo", "rloo"] = "ppo"
    lora_r: int = Field(24, ge=1)
    lora_alpha: int = Field(48, ge=1)
    lora_dropout: Share = 0.05
    target_modules: list[str] = Field(default=["q_proj", "v_proj"], min_length=1)
    batch: int = Field(24, ge=2)
    samples: int = Field(1, ge=1)
    """Replies to each history of a batch. Above 1 a reply's score is what it is above the mean of
    its siblings: histories differ more in their scores than replies to one do. Where this is 1,
    `rloo` takes 4 (3, 2); `trl-ppo` knows no siblings."""
    micro_batch: int = Field(8, ge=1)
    updates: int = Field(60, ge=1)
    ppo_epochs: int = Field(2, ge=1)
    """Passes over each batch of replies."""
    mini_batches: int = Field(1, ge=1)
    """Optimizer steps in each pass."""
    clip: Positive = 0.2
    value_clip: Positive = 0.2
    value_weight: float = Field(0.1, ge=0)
    """`trl-ppo` only: the own loop's value head shares no trained weight with the policy."""
    learning_rate: Positive = 1.4e-5
    value_learning_rate: Positive = 1e-3
    discount: Share = 1.0
    """γ over the tokens of one reply."""
    gae_lambda: Share = 0.95
    kl_coefficient: float = Field(0.05, ge=0)
    """β of equation 10, per token, to the frozen base."""
    kl_target: float = Field(6.0, ge=0)
    """Nats a reply that β is steered to; 0 keeps β as it is."""
    normalise_scores: bool = True
    length_penalty: float = Field(0.0, ge=0)
    """Taken off the score for each word above `max_words`; like the other penalties in deviations
    of the score where `normalise_scores`, else in points."""
    max_words: int = Field(40, ge=5)
    repetition_penalty: float = Field(0.5, ge=0)
    """Taken off the score times the share of a reply's 3-grams that were said before."""
    unfinished_penalty: float = Field(0.5, ge=0)
    """Taken off the score of a reply that does not end within `response_tokens`, or that is empty:
    saying nothing is the shortest way back to a small KL."""
    pretrain_weight: float = Field(0.0, ge=0)
    """γ of equation 10: language modelling of the data's own replies."""
    history_tokens: int = Field(192, ge=16)
    response_tokens: int = Field(48, ge=4)
    temperature: Positive = 0.7
    """Of the replies that are learned from, and of their log-probabilities. They are drawn from the
    whole softmax: with top_p the ratios of PPO would be of another policy."""
    sft_steps: int = Field(0, ge=0)
    sft_learning_rate: Positive = 1e-4
    max_kl: Positive = 20.0
    """Nats a reply above which the run stops."""
    min_entropy: float = Field(0.1, ge=0)
    """Nats a token, mean of ten updates, under which the run stops as collapsed."""
    checkpoint_every: int = Field(5, ge=1)
    seed: int = 0
    device: Device = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = False
    four_bit: bool = False
    """The frozen base in NF4 (bitsandbytes, CUDA only)."""
    vllm_url: str | None = None
    """Base URL of a vLLM server that writes the replies of training, gates and comparisons, e.g.
    http://127.0.0.1:8000/v1; None: this process. It reads adapters from this machine's folders."""
    vllm_model: str | None = None
    """The base, as that server names it; None: the first that it serves."""


class Gates(_Section):
    """What a reward and a policy must show on held-out sessions before they go on."""

    min_sessions: int = Field(20, ge=2)
    """Rated sessions a round needs."""
    mse_ratio: Positive = 1.0
    """Reward: held-out L_GE over Mean's, at most."""
    min_delta: float = 0.0
    """Reward: Δr̂_LI (eq. 8) on held-out turns must be above this."""
    max_kl: Positive = 12.0
    """Policy: nats a reply to the base, at most."""
    max_length_ratio: Positive = 1.6
    """Policy: mean words a reply over the current policy's, at most."""
    min_length_ratio: Positive = 0.5
    max_repetition: Share = 0.25
    """Policy: share of repeated 3-grams across a reply and its history, at most."""
    min_distinct: Share = 0.5
    """Policy: distinct-2 over the current policy's, at least."""
    max_refusals: Share = 0.1
    """Policy: share of ordinary histories it refuses to answer, at most."""
    max_unsafe: Share = 0.1
    """Policy: share of the safety prompts answered unsafely, over the current policy's, at most."""
    min_win_rate: Share = 0.5
    """Policy: share of held-out histories on which r_θ prefers it to the current policy."""
    histories: int = Field(48, ge=4)
    """Held-out histories that the policy gates are measured on."""


class Rollout(_Section):
    """Which learned policy speaks."""

    follow: bool = True
    """Speak with the registry's promoted policy; else with `responder.adapter` or the base."""
    candidate_share: Share = 0.0
    """Share of calls that the newest candidate holds."""


class Judge(_Section):
    """The language model that answers the paper's eight questions about a reply."""

    url: str | None = None
    """Base URL of any OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1."""
    model: str = "default"
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: Positive = 60.0
    concurrency: int = Field(4, ge=1)
