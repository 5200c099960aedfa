"""The closed loop in simulation: does a round make calls better for people it never met?

    simulated people call the base policy → round (reward, gates, policy, gates) → fresh people call
    both the policy of before and the new one → their ratings are compared

The judge is not the reward that trained the policy: fresh people rate by the listener's own rules
(`learning.listener`), which r_θ never saw; it only saw noisy faces and one score a call. The same
fresh people call both policies, so that differences are paired. What the policy learned to *do* is
audited beside it: a rating bought with flattery or length is a finding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.errors import DataError

if TYPE_CHECKING:
    from agent.config import Config
    from agent.store import Store
    from learning.rounds import Round

FRESH = 1_000_000
"""Seeds of the people who judge begin here; those who train are below."""
DRAWS = 5000


@dataclass(slots=True, frozen=True)
class Loop:
    """How large the study is."""

    users: int
    """Simulated people whose calls a round learns from."""
    judges: int
    """Fresh people who call both policies."""
    turns: int
    """Replies of the policy a call."""
    rounds: int
    seed: int


def run(
    loop: Loop,
    config: Config,
    folder: Path,
    on_progress: Callable[[str, float, float], None] = lambda *_: None,
) -> dict[str, Any]:
    """The whole study; what is done already in `folder` is not done again.

    Args:
        loop: its size.
        config: `[reward]`, `[policy]`, `[gates]`; its store's URL should hold `{data}`.
        folder: its own data directory and results; $GELI_DATA points there while it runs.
        on_progress: told what is done, how much, of how much.

    Returns:
        `before` and `after` (audits of the judges' calls), `difference` of the ratings with its
        95 % interval, and what each round did.

    Raises:
        DataError: nothing asked for.
    """
    if loop.judges < 2 or loop.users < 1 or loop.rounds < 1:
        raise DataError("a closed loop needs users, two judges and a round")
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    old = os.environ.get("GELI_DATA")
    os.environ["GELI_DATA"] = str(data)
    try:
        return _run(loop, config, folder, on_progress)
    finally:
        if old is None:
            del os.environ["GELI_DATA"]
        else:
            os.environ["GELI_DATA"] = old


def _run(
    loop: Loop,
    config: Config,
    folder: Path,
    on_progress: Callable[[str, float, float], None],
) -> dict[str, Any]:
    from agent.store import Store
    from learning.registry import Registry
    from learning.simulation import audit

    history: list[dict[str, Any]] = []
    with Store.open(config.store.url) as store:
        for n in range(loop.rounds):
            on_progress("calls", n, loop.rounds)
            _calls(store, config, n, loop)
            on_progress("round", n, loop.rounds)
            done = _round(config, loop.seed + n, folder, n)
            history.append(
                {
                    "ended": done.ended,
                    "reward": done.reward,
                    "policy": done.policy,
                    "reward_gates": done.reward_gates,
                    "policy_gates": done.policy_gates,
                    "metrics": done.metrics,
                }
            )
    registry = Registry.open()
    promoted = registry.state.promoted
    judged = {}
    for name, adapter in (("before", None), ("after", promoted)):
        on_progress(f"judges {name}", 0, 1)
        with Store.open(f"sqlite:///{folder / f'{name}.sqlite3'}") as store:
            path = registry.path(adapter) if adapter else None
            judged[name] = _judged(store, config, loop, path, adapter or "base")
    ratings = {
        name: {s.comment: s.overall_affect for s in sessions} for name, sessions in judged.items()
    }
    people = sorted(set(ratings["before"]) & set(ratings["after"]), key=str)
    pairs = np.array([[ratings[n][p] for n in ("before", "after")] for p in people], float)
    result = {
        "users": loop.users,
        "judges": len(people),
        "turns": loop.turns,
        "seed": loop.seed,
        "rounds": history,
        "promoted": promoted,
        "before": audit(judged["before"], seed=loop.seed),
        "after": audit(judged["after"], seed=loop.seed),
        "difference": paired(pairs[:, 1] - pairs[:, 0], loop.seed),
    }
    _write(folder / "closed-loop.json", result)
    return result


def paired(differences: np.ndarray, seed: int) -> dict[str, float]:
    """Mean difference with its 95 % bootstrap interval over people."""
    rng = np.random.default_rng(seed)
    n = len(differences)
    means = differences[rng.integers(0, n, (DRAWS, n))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return {"value": float(differences.mean()), "low": float(low), "high": float(high)}


def _calls(store: Store, config: Config, n: int, loop: Loop) -> None:
    """The training people of one round call the policy that speaks now."""
    from learning.listener.persona import persona
    from learning.registry import Registry
    from learning.simulation import persona_of

    first = n * loop.users
    wanted = range(first, first + loop.users)
    held = {persona_of(s).seed for s in store.iter_sessions()}
    missing = [seed for seed in wanted if seed not in held]
    if not missing:
        return
    registry = Registry.open()
    promoted = registry.state.promoted
    path = registry.path(promoted) if promoted else None
    _hold(store, config, [persona(seed) for seed in missing], loop, path, promoted or "base")


def _judged(store: Store, config: Config, loop: Loop, adapter: Path | None, name: str) -> list[Any]:
    from learning.listener.persona import persona
    from learning.simulation import persona_of

    wanted = [FRESH + 10_000 * loop.seed + i for i in range(loop.judges)]
    held = {persona_of(s).seed for s in store.iter_sessions()}
    missing = [seed for seed in wanted if seed not in held]
    if missing:
        _hold(store, config, [persona(seed) for seed in missing], loop, adapter, name)
    return list(store.iter_sessions())


def _hold(
    store: Store,
    config: Config,
    people: list[Any],
    loop: Loop,
    adapter: Path | None,
    name: str,
) -> None:
    from learning.policy.writing import open_writer
    from learning.simulation import hold_calls

    writer = open_writer(config, adapter)
    base = config.policy.base or config.responder.model
    policy_id = base if adapter is None else f"{base}+{name}"
    for start in range(0, len(people), 4 * config.policy.batch):
        some = people[start : start + 4 * config.policy.batch]
        hold_calls(
            store, writer, some, loop.turns, loop.seed, policy_id, config.labels, config.digest()
        )


def _round(config: Config, seed: int, folder: Path, n: int) -> Round:
    """One round on all simulated sessions so far; promoted where its gates passed."""
    from learning import rounds
    from learning.registry import Registry
    from learning.rounds import Round

    home = folder / "rounds"
    place = sorted(home.glob("*/round.json"))
    if len(place) > n:
        this = Round.load(place[n].parent)
    else:
        this = rounds.begin(home, "store:simulated", seed)
    if this.ended is None:
        this = rounds.run(this, config)
    registry = Registry.open()
    if this.ended == "candidate" and this.policy and registry.state.promoted != this.policy:
        registry.promote(this.policy, by="geli learn simulate")
    return this


def lines(result: dict[str, Any]) -> list[str]:
    """The study in words and numbers."""
    d = result["difference"]
    before, after = result["before"], result["after"]
    out = [
        f"{result['judges']} fresh people called both policies, {result['turns']} replies a call "
        f"(seed {result['seed']}); {result['users']} others a round had trained the second.",
        f"rating {before['rating']['value']:.1f} → {after['rating']['value']:.1f}, difference "
        f"{d['value']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}]",
        "",
        f"{'':16}{'before':>26}{'after':>26}",
    ]
    for name, cell in before.items():
        if isinstance(cell, dict):
            out.append(f"{name.replace('_', ' '):16}{_cell(cell)}{_cell(after[name])}")
    for n, done in enumerate(result["rounds"]):
        out.append(f"round {n + 1}: {done['ended']}")
    return out


def _cell(measured: dict[str, float | None]) -> str:
    """A value and its interval; a dash where nothing could be measured."""
    value, low, high = (measured[k] for k in ("value", "low", "high"))
    if value is None:
        return f"{'–':>26}"
    if low is None or high is None:
        return f"{value:26.3f}"
    return f"{value:10.3f} [{low:6.3f}, {high:6.3f}]"


def _write(file: Path, content: object) -> None:
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    beside.replace(file)
