"""How many calls a worker may take: from what a call costs here, and from how it fares right now.

`cap` turns the measured cost of a call into a number of calls; `geli bench capacity` measures and
keeps it in the data directory, `limits.concurrent_calls = "auto"` reads it. `pressed` tells whether
a worker is overloaded whatever the number says, with hysteresis. Both are pure.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config import Config, Limits
from agent.errors import ConfigError
from agent.store_engine import data_dir

SLOWER = 2.0
"""Callers that wait this many times as long are too many."""
SMOOTH_S = 2.0
"""Time constant of the event loop's lag: one stall alone is no overload."""
SHED_AFTER_S = 2.0
"""Over a limit this long: new calls are refused."""
CALM_S = 5.0
"""Under half of every limit this long: they are taken again."""
MEASURE = "run: geli bench capacity"
COSTLY = {
    "voice_activity", "end_of_turn", "recognizer", "responder", "speaker", "perception",
}  # fmt: skip
"""Sections of the configuration that decide what a call costs."""


@dataclass(slots=True, frozen=True)
class Cost:
    """What running calls took of a machine, measured."""

    calls: int
    """At once."""
    cores: float
    """CPU seconds a second, of all of them together."""
    loop: float
    """The event loop's part of it: one thread, so at most one core."""
    wait_s: float
    """Median voice to voice: work waits for an engine long before the CPU is full."""


def cap(costs: Sequence[Cost], cores: float, target: float, workers: int = 1) -> int:
    """Calls that one of `workers` on `cores` may take, the least of three numbers.

    The CPU: the cost of a further call is the slope of the least-squares line through the
    measurements, which has a fixed part; one measurement alone counts as proportional. The event
    loop: the same, with one core to fill. The wait: where callers waited `SLOWER` times as long as
    with the fewest calls, the number is the largest measured before it.

    Args:
        costs: at least one measurement, of one worker on the whole machine.
        cores: of the machine.
        target: share of the CPU that calls may take, over 0 to 1.
        workers: that share the machine.

    Returns:
        At least 1.
    """
    share = cores / workers
    bounds = [
        _most([(cost.calls, cost.cores) for cost in costs], share * target),
        _most([(cost.calls, cost.loop) for cost in costs], min(1.0, share) * target),
    ]
    ordered = sorted(costs, key=lambda cost: cost.calls)
    for before, cost in zip(ordered, ordered[1:], strict=False):
        if cost.wait_s > SLOWER * ordered[0].wait_s:
            bounds.append(before.calls // workers)
            break
    return max(1, min(bounds))


def _most(points: Sequence[tuple[int, float]], budget: float) -> int:
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    if slope <= 0:  # one point, or noise: every call costs the same
        slope = max(y / x for x, y in points)
    fixed = max(0.0, mean_y - slope * mean_x)
    return math.floor((budget - fixed) / slope + 1e-9) if slope > 0 else 2**31


def resolved(config: Config) -> Config:
    """`config` with a number for `limits.concurrent_calls`.

    Raises:
        ConfigError: it is "auto", and nothing was measured here, or for other engines.
    """
    if config.limits.concurrent_calls != "auto":
        return config
    path = file()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        costs = [Cost(**cost) for cost in found["costs"]]
        measured_for, cores = str(found["engines"]), int(found["cores"])
    except FileNotFoundError:
        raise ConfigError(
            'limits.concurrent_calls = "auto": nobody has measured what a call costs here', MEASURE
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is damaged", MEASURE) from None
    if not costs or measured_for != _engines(config) or cores != here():
        raise ConfigError(
            f'limits.concurrent_calls = "auto": {path} was measured on another machine or with '
            "other engines",
            MEASURE,
        )
    calls = cap(costs, cores, config.limits.target_utilisation, config.server.workers)
    limits = config.limits.model_copy(update={"concurrent_calls": calls})
    return config.model_copy(update={"limits": limits})


def keep(config: Config, costs: Sequence[Cost]) -> Path:
    """Note what was measured for `config` on this machine; returns where."""
    found: dict[str, Any] = {
        "engines": _engines(config),
        "cores": here(),
        "costs": [dataclasses.asdict(cost) for cost in costs],
    }
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
    return path


def _engines(config: Config) -> str:
    """SHA-256 (16 hex digits) of what decides the cost of a call."""
    content = config.model_dump(mode="json", include=COSTLY)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def file() -> Path:
    """Where the measured cost lies."""
    return data_dir() / "capacity.json"


def here() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(slots=True, frozen=True)
class Pressure:
    """How a worker fares."""

    overloaded: bool = False
    lag_s: float = 0.0
    """Lateness of the event loop, smoothed."""
    at: float | None = None
    """When it was looked at last."""
    since: float | None = None
    """Since when what is seen speaks for the other state."""


def pressed(before: Pressure, now: float, lag_s: float, wait_s: float, limits: Limits) -> Pressure:
    """The next state.

    Args:
        before: the last one.
        now: seconds of any clock that runs steadily.
        lag_s: lateness of the event loop just now.
        wait_s: how long the oldest work waits for its engine.
        limits: `shed_lag_s` and `shed_wait_s`; 0 switches one off.
    """
    passed_s = 0.0 if before.at is None else max(0.0, now - before.at)
    lag_s = before.lag_s + (lag_s - before.lag_s) * (1 - math.exp(-passed_s / SMOOTH_S))
    loads = [
        value / limit
        for value, limit in ((lag_s, limits.shed_lag_s), (wait_s, limits.shed_wait_s))
        if limit > 0
    ]
    load = max(loads, default=0.0)
    contrary = load < 0.5 if before.overloaded else load > 1.0
    if not contrary:
        return Pressure(before.overloaded, lag_s, now, None)
    since = now if before.since is None else before.since
    if now - since >= (CALM_S if before.overloaded else SHED_AFTER_S):
        return Pressure(not before.overloaded, lag_s, now, None)
    return Pressure(before.overloaded, lag_s, now, since)
