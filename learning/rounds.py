"""A round: from the store's rated sessions to the next policy.

    snapshot → reward → gates → policy → gates → candidate → promotion

Every step writes what it found into the round's folder before the next one begins, so that a killed
round goes on where it was. The snapshot keeps ids, not words: a session that is deleted while a
round runs is gone from it, and the round then says so and must be begun anew. A failed gate ends
the round with the old policy in place; what was trained is kept in the registry with its gates.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agent.errors import GeliError
from learning.dialogue import Dataset, Dialogue
from learning.errors import DataError, TrainingError
from learning.gates import failed, policy_gates, reward_gates, win_rate
from learning.registry import ADAPTER, BASE, GateResult, Registry
from learning.splits import Split, split

if TYPE_CHECKING:
    from agent.config import Config

Promote = Literal["auto", "ask"]
SAFETY_DRAWS = 4
"""Replies to each safety prompt: one alone says little of a policy that draws."""
STEPS = ("snapshot", "reward", "policy", "candidate")


@dataclass(slots=True)
class Round:
    """What is known of a round so far; `round.json` in its folder."""

    folder: Path
    source: str
    seed: int
    started_at: str
    digest: str | None = None
    sessions: list[str] = field(default_factory=list)
    reward: str | None = None
    reward_gates: list[dict[str, Any]] = field(default_factory=list)
    updates: int | None = None
    """Of the policy, as last begun or gone on with; None: not begun, or of an older version."""
    policy: str | None = None
    policy_gates: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    ended: str | None = None
    """Why it is over: `candidate`, or the gate that failed."""

    def save(self) -> None:
        """Write `round.json`, whole or not at all."""
        content = {k: getattr(self, k) for k in self.__slots__ if k != "folder"}
        beside = self.folder / ".round.json"
        with beside.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.folder / "round.json")

    @classmethod
    def load(cls, folder: Path) -> Round:
        """Read `round.json`.

        Raises:
            TrainingError: it is not one.
        """
        try:
            content = json.loads((folder / "round.json").read_text(encoding="utf-8"))
            return cls(folder, **content)
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(
                f"{folder}: no round that can be read: {type(error).__name__}",
                "begin another: geli learn round --new",
            ) from None


def rounds_folder() -> Path:
    """Where rounds lie: `rounds` in the data directory."""
    from agent.store_engine import data_dir

    return data_dir() / "rounds"


def unfinished(home: Path) -> Round | None:
    """The newest round that has not ended."""
    for folder in sorted(home.glob("*/round.json"), reverse=True):
        found = Round.load(folder.parent)
        if found.ended is None:
            return found
    return None


def begin(home: Path, source: str, seed: int) -> Round:
    """A new round in a folder of its own."""
    now = datetime.now(UTC)
    folder = home / f"{now:%Y%m%dT%H%M%S}"
    n = 1
    while folder.exists():
        n += 1
        folder = home / f"{now:%Y%m%dT%H%M%S}-{n}"
    folder.mkdir(parents=True)
    made = Round(folder, source, seed, now.isoformat(timespec="seconds"))
    made.save()
    return made


def plan(data: Dataset, config: Config, current: str) -> list[str]:
    """What a round would do, one line a step, without doing it.

    Raises:
        DataError: what it could not begin with.
    """
    from learning.rewarding import check

    check(data, config, config.gates.min_sessions)
    rated = sum(d.rating is not None for d in data.dialogues)
    labelled = sum(d.turns[i].li is not None for d in data.dialogues for i in d.scored)
    parts = split(data.dialogues, config.reward.seed)
    reward, policy, gates = config.reward, config.policy, config.gates
    return [
        f"snapshot   {len(data.dialogues)} sessions of {data.source}, {rated} rated, "
        f"{labelled} labelled turns, digest {data.digest}",
        f"reward     {reward.method}+{reward.shaping}, λ {reward.lambda_ge:g}, "
        f"{reward.encoder}, at most {reward.epochs} epochs on {len(parts.train)} sessions, "
        f"stopped on {len(parts.validation)}",
        f"gates      on {len(parts.test)} held-out sessions: MSE below {gates.mse_ratio:g} of "
        f"Mean's, Δr̂_LI above {gates.min_delta:g}",
        f"policy     {policy.algorithm}, {policy.updates} updates of {policy.batch} replies, "
        f"LoRA r={policy.lora_r} on {policy.base or config.responder.model}",
        f"gates      on {gates.histories} held-out histories against {current}: KL at most "
        f"{gates.max_kl:g} nats, length × {gates.min_length_ratio:g} to "
        f"{gates.max_length_ratio:g}, win rate at least {gates.min_win_rate:g}",
        "candidate  into the registry; promotion is asked for, or done with --promote auto",
    ]


def run(
    this: Round,
    config: Config,
    on_progress: Callable[[str, float, float], None] = lambda *_: None,
) -> Round:
    """Do what is left of a round, up to the candidate.

    Args:
        this: new or unfinished.
        config: `[reward]`, `[policy]`, `[gates]`.
        on_progress: told the step, how much of it is done, of how much.

    Raises:
        DataError: too little to learn from, or the snapshot has changed.
        TrainingError: a run that had to stop (NaN, KL out of bounds, collapse).
        RegistryError: the registry cannot be written.
    """
    config = _seeded(config, this.seed)
    try:
        data = _snapshot(this, config)
    except GeliError:
        if this.digest is None:  # it never began: nothing to go on with
            (this.folder / "round.json").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                this.folder.rmdir()
        raise
    parts = split(data.dialogues, this.seed)
    registry = Registry.open()
    if this.reward is None:
        _reward(this, data, config, on_progress)
    if this.ended is None and this.policy is None:
        _policy(this, data, parts, config, registry, on_progress)
    return this


def _seeded(config: Config, seed: int) -> Config:
    return config.model_copy(
        update={
            "reward": config.reward.model_copy(update={"seed": seed}),
            "policy": config.policy.model_copy(update={"seed": seed}),
        }
    )


def _snapshot(this: Round, config: Config) -> Dataset:
    """The sessions of the snapshot, as they are now; taken at the first step."""
    from learning.data import load
    from learning.rewarding import check

    data = load(this.source, config)
    if this.digest is None:
        check(data, config, config.gates.min_sessions)
        this.sessions = [d.id for d in data.dialogues]
        this.digest = data.digest
        this.save()
        return data
    wanted = set(this.sessions)
    data = data.only(d for d in data.dialogues if d.id in wanted)
    if data.digest != this.digest:
        gone = len(wanted) - len(data.dialogues)
        what = f"{gone} of its sessions are gone" if gone else "its sessions were changed"
        raise DataError(f"{this.folder}: {what}", "begin another: geli learn round --new")
    return data


def _reward(
    this: Round,
    data: Dataset,
    config: Config,
    on_progress: Callable[[str, float, float], None],
) -> None:
    from learning import rewarding

    folder = this.folder / "reward"
    made = rewarding.make(
        data, config, folder, on_progress=lambda _, done, whole: on_progress("reward", done, whole)
    )
    results = reward_gates(made.metrics, config.reward.shaping, config.gates)
    manifest = rewarding.keep(made, config, folder, tuple(results))
    this.reward_gates = told(results)
    this.metrics |= {f"reward_{k}": v for k, v in made.metrics.items()}
    if bad := failed(results):
        this.ended = f"reward gate failed: {'; '.join(map(str, bad))}"
    this.reward = manifest.id
    this.save()


def _policy(
    this: Round,
    data: Dataset,
    parts: Split,
    config: Config,
    registry: Registry,
    on_progress: Callable[[str, float, float], None],
) -> None:
    from learning.policy.train import train
    from learning.reward import load

    this.updates = config.policy.updates
    this.save()
    reward = load(this.reward or "", config)
    folder = this.folder / "policy"
    outcome = train(
        [*parts.pick(data.dialogues, "train"), *parts.pick(data.dialogues, "validation")],
        reward,
        config,
        folder,
        resume=True,
        on_update=lambda done: on_progress("policy", done, config.policy.updates),
    )
    on_progress("gates", 0, 1)
    metrics = measure(
        parts.pick(data.dialogues, "test"),
        outcome.adapter,
        _current(registry),
        reward,
        config,
    )
    results = policy_gates(
        {k: v for k, v in metrics.items() if not k.startswith("current_")},
        {k.removeprefix("current_"): v for k, v in metrics.items() if k.startswith("current_")},
        config.gates,
    )
    if outcome.stopped:
        metrics["stopped"] = 1.0
    this.policy = _keep(this, data, config, registry, outcome, metrics, results)
    this.policy_gates = told(results)
    this.metrics |= {f"policy_{k}": v for k, v in metrics.items()}
    if bad := failed(results):
        this.ended = f"policy gate failed: {'; '.join(map(str, bad))}"
    else:
        registry.set_candidate(this.policy, by="geli learn round")
        this.ended = "candidate"
    this.save()
    on_progress("gates", 1, 1)


def _keep(
    this: Round,
    data: Dataset,
    config: Config,
    registry: Registry,
    outcome: Any,
    metrics: dict[str, float],
    results: list[GateResult],
) -> str:
    import shutil

    from learning.rewarding import versions

    entry = this.folder / "entry"
    shutil.rmtree(entry, ignore_errors=True)  # of a round that was killed here
    entry.mkdir()
    for name in ADAPTER:
        shutil.copy(outcome.adapter / name, entry / name)
    for name in ("curves.jsonl", "curves.png"):
        if (this.folder / "policy" / name).is_file():
            shutil.copy(this.folder / "policy" / name, entry / name)
    return registry.add(
        "policy",
        entry,
        base=config.policy.base or config.responder.model,
        reward=this.reward,
        seed=this.seed,
        data_digest=data.digest,
        data_source=data.source,
        sessions=this.sessions if data.source.startswith("store") else [],
        metrics=metrics,
        gates=results,
        versions=versions(),
        settings=config.policy.model_dump(mode="json"),
        notes=f"stopped: {outcome.stopped}" if outcome.stopped else "",
    ).id


def told(results: list[GateResult]) -> list[dict[str, Any]]:
    """Gates as JSON: what could not be measured is null."""
    return [
        r.model_dump() | {"value": r.value if math.isfinite(r.value) else None} for r in results
    ]


def _current(registry: Registry) -> Path | None:
    """The adapter that speaks now; None: the base."""
    promoted = registry.state.promoted
    return registry.path(promoted) if promoted else None


def measure(
    held: list[Dialogue], candidate: Path, current: Path | None, reward: Any, config: Config
) -> dict[str, float]:
    """Both policies on the same held-out histories: what the gates are held against.

    Args:
        held: dialogues that neither the reward nor the policy saw.
        candidate: adapter folder.
        current: adapter folder of the policy that speaks; None: the base.
        reward: a `Scorer`.
        config: `[gates] histories`, sampling of the live call.

    Returns:
        Of the candidate: kl (nats a reply to the base), words, repetition, distinct_2, refusals,
        unsafe, score, win_rate; and `current_` words, distinct_2, score, …

    Raises:
        DataError: the held-out sessions have no history to answer.
    """
    from learning.compare import measures, probes
    from learning.policy.prompts import histories
    from learning.policy.writing import open_writer

    asked = histories(held, config.policy.seed, config.gates.histories)
    if not asked:
        raise DataError("the held-out sessions have nothing to answer", "hold more calls")
    out: dict[str, float] = {}
    scores = {}
    for name, adapter in (("", candidate), ("current_", current)):
        writer = open_writer(config, adapter)
        replies = writer.write(asked, config.policy.seed)
        scores[name] = reward.score(asked, replies)
        out |= {
            f"{name}words": measures.words(replies),
            f"{name}distinct_2": measures.distinct(replies, 2),
            f"{name}repetition": measures.repetition(asked, replies),
            f"{name}refusals": probes.refusals(replies),
            f"{name}unsafe": probes.unsafe(writer, config.policy.seed, SAFETY_DRAWS),
            f"{name}kl": float(sum(writer.kl(asked, replies)) / len(replies)),
            f"{name}score": sum(scores[name]) / len(replies),
        }
        del writer
    out["win_rate"] = win_rate(scores[""], scores["current_"])
    return out


def current_name(registry: Registry) -> str:
    """The id of the policy that speaks now, or `base`."""
    return registry.state.promoted or BASE
