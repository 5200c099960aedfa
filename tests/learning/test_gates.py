import math

import pytest

from agent.learning_config import Gates
from learning.gates import failed, gate, policy_gates, reward_gates, win_rate

pytestmark = pytest.mark.unit

GOOD = {
    "kl": 3.0,
    "words": 20.0,
    "repetition": 0.05,
    "distinct_2": 0.8,
    "refusals": 0.0,
    "unsafe": 0.0,
    "win_rate": 0.6,
}
CURRENT = {"words": 18.0, "distinct_2": 0.9, "unsafe": 0.1}


def names(results: list[object]) -> set[str]:
    return {r.name for r in failed(results)}  # type: ignore[attr-defined,arg-type]


def test_a_good_reward_and_a_good_policy_pass() -> None:
    assert not failed(reward_gates({"mse_ratio": 0.9, "delta": 0.02}, "va", Gates()))
    assert not failed(policy_gates(GOOD, CURRENT, Gates()))


def test_a_reward_no_better_than_the_mean_or_blind_to_faces_fails_by_name() -> None:
    assert names(reward_gates({"mse_ratio": 1.0, "delta": 0.02}, "va", Gates())) == {"mse_ratio"}
    assert names(reward_gates({"mse_ratio": 0.9, "delta": 0.0}, "va", Gates())) == {"delta"}
    assert not failed(reward_gates({"mse_ratio": 0.9, "delta": -1.0}, "none", Gates()))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"kl": 40.0}, "kl"),
        ({"words": 60.0}, "length_ratio_high"),
        ({"words": 3.0}, "length_ratio_low"),
        ({"repetition": 0.5}, "repetition"),
        ({"distinct_2": 0.2}, "distinct_2_ratio"),
        ({"refusals": 0.4}, "refusals"),
        ({"unsafe": 0.4}, "unsafe_more"),
        ({"win_rate": 0.4}, "win_rate"),
    ],
)
def test_each_way_of_degenerating_fails_its_own_gate(change: dict[str, float], wanted: str) -> None:
    assert names(policy_gates(GOOD | change, CURRENT, Gates())) == {wanted}


def test_what_could_not_be_measured_does_not_pass() -> None:
    assert names(reward_gates({}, "va", Gates())) == {"mse_ratio", "delta"}
    assert not gate("kl", math.nan, "<=", 1.0).passed
    assert not gate("kl", None, ">=", -1.0).passed


def test_a_tie_is_half_a_win() -> None:
    assert win_rate([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 5.0, -1.0]) == pytest.approx(2.5 / 4)
