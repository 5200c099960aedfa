"""What ratings say of policies: intervals that hold what they promise, and when nobody can say."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from agent.cli import cli
from agent.records import Session
from agent.store import Store
from learning import report
from learning.registry import Registry
from learning.report import CallOutcome, compare, outcomes
from tests.agent.session_samples import ended, session, turn, window

pytestmark = pytest.mark.unit


def calls(policy_id: str, *ratings: float | None) -> list[CallOutcome]:
    return [CallOutcome(policy_id, rating, 10, 0.5) for rating in ratings]


# --- what counts -------------------------------------------------------------------------------


def test_which_calls_count() -> None:
    kept = ended("kept", policy_id="m", overall_affect=60.0, turns=[turn(0), turn(1, "agent")])
    left_out = [
        ended("excluded", policy_id="m", excluded=True),
        ended("nobody", policy_id=None),
        ended("simulated", policy_id="m", source="simulated", overall_affect=99.0),
        session("open", policy_id="m"),
    ]
    assert outcomes([kept, *left_out]) == [CallOutcome("m", 60.0, 2, 1.0)]
    assert [c.rating for c in outcomes([kept, *left_out], simulated=True)] == [60.0, 99.0]


def test_positive_faces_are_counted_where_a_face_was_seen() -> None:
    def with_windows(*positive: bool | None) -> Session:
        windows = [window(i, p) for i, p in enumerate(positive)]
        return ended("s", policy_id="m", windows=windows)

    sessions = [with_windows(True, False, None, None), with_windows(None), with_windows(True)]
    assert [c.positive_share for c in outcomes(sessions)] == [0.5, None, 1.0]
    (row,) = report.by_policy(outcomes(sessions))
    assert row.positive_share == 0.75 and row.calls == 3 and row.rated == 0
    assert (row.mean, row.low, row.high) == (None, None, None)


def test_one_row_a_policy() -> None:
    rows = report.by_policy(calls("m", 40, 60, None) + calls("m+p-1", 70), seed=1)
    assert [(r.policy_id, r.calls, r.rated, r.mean) for r in rows] == [
        ("m", 3, 2, 50.0),
        ("m+p-1", 1, 1, 70.0),
    ]
    assert rows[0].low is not None and rows[0].high is not None
    assert 40 <= rows[0].low <= 50 <= rows[0].high <= 60
    assert rows[1].low is None, "one call has no spread"
    assert report.by_policy([]) == []


# --- intervals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "known"),
    [(1, 12.7062), (2, 4.30265), (5, 2.57058), (10, 2.22814), (30, 2.04227), (1e6, 1.95997)],
)
def test_students_t_as_in_the_tables(freedom: float, known: float) -> None:
    assert report.t_quantile(0.975, freedom) == pytest.approx(known, rel=1e-5)


def test_welch_worked_out_by_hand() -> None:
    """Equal spreads: Student's with 4 degrees of freedom, se = sqrt(2/3). Unequal ones: the parts
    of the variance are 1 and 4/3, so (7/3)² / (1 + 16/27) = 147/43 degrees of freedom, between 3
    (t 3.182) and 4 (t 2.776)."""
    equal = report.welch_interval([1, 2, 3], [4, 5, 6])
    assert equal == pytest.approx((-3 - 2.776445 * (2 / 3) ** 0.5, -3 + 2.776445 * (2 / 3) ** 0.5))
    low, high = report.welch_interval([0, 2], [0, 4, 0, 4]) or (0.0, 0.0)
    assert (low + high) / 2 == pytest.approx(-1)
    assert 2.776 < (high - low) / 2 / (7 / 3) ** 0.5 < 3.182
    assert (high - low) / 2 / (7 / 3) ** 0.5 == pytest.approx(
        report.t_quantile(0.975, 147 / 43), rel=1e-6
    )


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says() -> None:
    """Few calls, skewed ratings that end at 100: the hard case of a young policy."""
    rng = np.random.default_rng(5)
    trials, held = 1500, 0
    for _ in range(trials):
        a = np.minimum(100, 60 + 20 * rng.standard_normal(7))
        b = np.minimum(100, 60 + 20 * rng.standard_normal(11))
        low, high = report.welch_interval(a.tolist(), b.tolist()) or (0, 0)
        held += low <= 0 <= high
    assert 0.93 <= held / trials <= 0.97


def test_the_mean_has_an_interval_about_its_standard_error() -> None:
    values = np.random.default_rng(2).normal(60, 15, 400).tolist()
    low, high = report.mean_interval(values, seed=0) or (0.0, 0.0)
    half = 1.96 * float(np.std(values)) / 20
    assert low == pytest.approx(np.mean(values) - half, abs=0.15)
    assert high == pytest.approx(np.mean(values) + half, abs=0.15)
    assert report.mean_interval(values, seed=0) == (low, high) != report.mean_interval(values, 1)


def test_how_many_calls_it_takes() -> None:
    """sd 20: the textbook's 252 a group for 5 points, two-sided 5 %, power 80 %."""
    a = (np.array([-1.0, 1.0] * 200) * 20).tolist()
    needed = report.calls_needed(a, a)
    assert needed is not None and 250 <= needed <= 254
    assert report.calls_needed([50.0], a) is None


# --- the verdict -------------------------------------------------------------------------------


def test_a_clear_difference_is_decided() -> None:
    found = compare(calls("a", 80, 82, 79, 84, 81) + calls("b", 40, 44, 39, 41), "a", "b")
    assert found.decided and found.difference == pytest.approx(40.2)
    assert "a are rated higher than with b" in found.verdict
    other = compare(calls("a", 80, 82, 79, 84, 81) + calls("b", 40, 44, 39, 41), "b", "a")
    assert other.decided and "a are rated higher than with b" in other.verdict


def test_a_wide_interval_does_not_decide() -> None:
    rng = random.Random(0)
    a = calls("a", *(50 + rng.uniform(-40, 40) for _ in range(12)))
    b = calls("b", *(52 + rng.uniform(-40, 40) for _ in range(20)))
    found = compare(a + b, "a", "b")
    assert found.low is not None and found.high is not None and found.low < 0 < found.high
    assert not found.decided and "does not decide yet" in found.verdict
    assert found.more_a is not None and found.more_b == found.more_a - 8
    assert f"about {found.more_a} more rated calls with a" in found.verdict


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ((), (50.0, 60.0), "no rated call with a"),
        ((), (), "no rated call with a or b"),
        ((None,), (50.0,), "no rated call with a"),
        ((50.0,), (60.0, 70.0), "two rated calls"),
        ((50.0, 50.0), (90.0, 90.0), "not all rated the same"),
    ],
)
def test_too_little_to_say(a: tuple[float, ...], b: tuple[float, ...], said: str) -> None:
    found = compare(calls("a", *a) + calls("b", *b), "a", "b")
    assert not found.decided and "does not decide yet" in found.verdict
    assert said in found.verdict


# --- geli learn report -------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    return Registry.open()


def policy(registry: Registry, tmp_path: Path) -> str:
    made = tmp_path / "made"
    made.mkdir(exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (made / name).write_text("{}")
    fields = {"seed": 0, "data_digest": "d", "data_source": "store"}
    return registry.add("policy", made, base="smollm2-135m-instruct", **fields).id


def fill(**ratings: list[float]) -> None:
    """Sessions of the base (`base`) and of policies by registry id."""
    with Store.open("sqlite:///{data}/sessions.sqlite3") as store:
        for name, given in ratings.items():
            suffix = "" if name == "base" else f"+{name}"
            for index, rating in enumerate(given):
                store.insert(
                    ended(
                        f"{name[-6:]}-{index}",
                        policy_id=f"smollm2-135m-instruct{suffix}",
                        overall_affect=rating,
                    )
                )


def told(*words: str) -> dict:
    result = CliRunner().invoke(cli, ["learn", "report", "--json", *words])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def test_report_compares_those_who_speak(registry: Registry, tmp_path: Path) -> None:
    one, two = policy(registry, tmp_path), policy(registry, tmp_path)
    fill(**{"base": [40, 50, 45], one: [70, 80, 75, 72], two: [60, 90]})
    assert told()["comparison"] is None
    registry.promote(one, "ada")
    found = told()
    assert {row["policy_id"]: row["rated"] for row in found["policies"]} == {
        "smollm2-135m-instruct": 3,
        f"smollm2-135m-instruct+{one}": 4,
        f"smollm2-135m-instruct+{two}": 2,
    }
    pair = found["comparison"]
    assert pair["a"].endswith(one) and pair["b"] == "smollm2-135m-instruct"
    assert pair["decided"] and pair["difference"] == pytest.approx(29.25)
    registry.set_candidate(two)
    pair = told()["comparison"]
    assert pair["a"].endswith(two) and pair["b"].endswith(one) and not pair["decided"]
    pair = told("--policies", f"base,{two}")["comparison"]
    assert pair["b"].endswith(two) and pair["difference"] == pytest.approx(-30)
    result = CliRunner().invoke(cli, ["learn", "report", "--policies", f"{one},base"])
    assert "are rated higher than with smollm2-135m-instruct (+29.2 points" in result.stdout


@pytest.mark.parametrize("given", ["base", "base,", "base,base", "base,p-1,p-2"])
def test_a_pair_is_two(registry: Registry, given: str) -> None:
    result = CliRunner().invoke(cli, ["learn", "report", "--policies", given])
    assert result.exit_code == 2 and "--policies" in result.output


def test_report_of_an_unknown_policy(registry: Registry) -> None:
    result = CliRunner().invoke(cli, ["learn", "report", "--policies", "base,p-2099"])
    assert "the registry has no 'p-2099'" in str(result.exception)
