"""How many calls a worker takes: the cap from measured cost, and shedding with hysteresis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import capacity
from agent.capacity import Cost, Pressure, cap, pressed
from agent.config import Limits, load
from agent.errors import ConfigError

pytestmark = pytest.mark.unit

LIMITS = Limits(shed_lag_s=0.25, shed_wait_s=8)
MEASURED = [Cost(1, 0.35, 0.05, 0.8), Cost(2, 0.60, 0.10, 0.9), Cost(4, 1.10, 0.20, 1.3)]
"""0.1 cores to begin with, 0.25 a call."""


def test_a_call_more_costs_what_the_line_says() -> None:
    assert cap(MEASURED, cores=2, target=0.7) == 5  # (1.4 - 0.1) / 0.25
    assert cap(MEASURED, cores=8, target=0.7) == 14  # the event loop: 0.7 / 0.05
    assert cap(MEASURED, cores=0.1, target=0.7) == 1


def test_callers_who_wait_are_too_many() -> None:
    """The CPU alone would take 30; at 8 the engines' queues are what callers hear."""
    slow = [*MEASURED, Cost(8, 1.3, 0.3, 3.0)]
    assert cap(slow, cores=8, target=1) == 4
    assert cap(slow, cores=8, target=1, workers=2) == 2
    assert cap(slow, cores=8, target=1, workers=8) == 1


def test_one_measurement_is_proportional() -> None:
    assert cap([Cost(2, 0.5, 0.1, 1.0)], cores=2, target=0.5) == 4


@given(st.floats(0.1, 64), st.floats(0.05, 1))
def test_more_cores_never_carry_less(cores: float, target: float) -> None:
    assert cap(MEASURED, cores + 1, target) >= cap(MEASURED, cores, target) >= 1


def test_auto_takes_what_was_measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GELI_DATA", str(tmp_path))
    config = load("cpu", ["limits.concurrent_calls=auto"])
    with pytest.raises(ConfigError, match="nobody has measured.*geli bench capacity"):
        capacity.resolved(config)
    with pytest.raises(RuntimeError):
        config.limits.calls  # noqa: B018
    path = capacity.keep(config, MEASURED)
    expected = cap(MEASURED, capacity.here(), 0.7)
    assert capacity.resolved(config).limits.calls == expected
    halved = load("cpu", ["limits.concurrent_calls=auto", "server.workers=2"])
    assert capacity.resolved(halved).limits.calls == cap(MEASURED, capacity.here(), 0.7, workers=2)
    for other in ("recognizer.model=whisper-base", "perception.frames_hz=9"):
        with pytest.raises(ConfigError, match="other engines"):
            capacity.resolved(load("cpu", ["limits.concurrent_calls=auto", other]))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cores": 10_000}))
    with pytest.raises(ConfigError, match="another machine"):
        capacity.resolved(config)
    path.write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        capacity.resolved(config)


def test_a_number_needs_no_measurement() -> None:
    config = load("cpu", ["limits.concurrent_calls=7"])
    assert capacity.resolved(config) is config
    assert config.limits.calls == 7


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "2.5"])
def test_nothing_else_is_a_number_of_calls(wrong: str) -> None:
    with pytest.raises(ConfigError, match="concurrent_calls"):
        load("cpu", [f"limits.concurrent_calls={wrong}"])


def after(state: Pressure, seconds: float, lag_s: float, wait_s: float = 0.0) -> Pressure:
    for _ in range(round(seconds / 0.1)):
        state = pressed(state, (state.at or 0.0) + 0.1, lag_s, wait_s, LIMITS)
    return state


def test_overload_has_hysteresis() -> None:
    calm = after(Pressure(), 5, 0.01)
    assert not calm.overloaded
    assert not after(calm, 1.5, 1.0).overloaded
    shed = after(calm, 5, 1.0)
    assert shed.overloaded
    between = after(shed, 60, 0.2)  # under the limit, but not by half
    assert between.overloaded
    assert between.since is None
    assert not after(between, 12, 0.01).overloaded
    assert after(calm, 60, 0.2).overloaded is False


def test_one_stall_is_no_overload() -> None:
    state = after(Pressure(), 5, 0.0)
    state = pressed(state, (state.at or 0.0) + 1.1, 1.0, 0.0, LIMITS)
    assert not after(state, 10, 0.0).overloaded


def test_waiting_for_an_engine_is_overload() -> None:
    assert after(Pressure(), 3, 0.0, wait_s=9).overloaded
    assert not after(Pressure(), 30, 0.0, wait_s=7).overloaded


def test_limits_of_zero_are_off() -> None:
    state = Pressure()
    for tick in range(100):
        state = pressed(state, tick, 9.0, 90.0, Limits(shed_lag_s=0, shed_wait_s=0))
    assert not state.overloaded
