"""The closed loop on tiny models: who judges, what is compared, and that a killed study goes on."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from agent import config as configs
from agent.store import Store
from learning import closed_loop
from learning.closed_loop import Loop, paired
from learning.simulation import persona_of
from tests.learning import tiny
from tests.learning.policy import small
from tests.learning.test_rounds import LENIENT, QUICK

pytestmark = pytest.mark.engine
torch.set_num_threads(1)


def test_fresh_people_judge_both_policies_and_nothing_is_done_twice(tmp_path: Path) -> None:
    encoder = tiny.encoder(tmp_path / "encoder", "bert")
    llama = small.llama(tmp_path / "llama")
    paths = f"models.paths={{tiny-encoder = '{encoder}', tiny-llama = '{llama}'}}"
    chosen = [paths, *small.plain(), *QUICK, *LENIENT, "dialogue.history_tokens=200"]
    config = configs.load("cpu", chosen)
    before = os.environ.get("GELI_DATA")
    loop = Loop(users=30, judges=4, turns=4, rounds=1, seed=0)
    out = tmp_path / "study"
    result = closed_loop.run(loop, config, out)
    assert os.environ.get("GELI_DATA") == before
    assert result["rounds"][0]["ended"] == "candidate"
    assert result["promoted"] == result["rounds"][0]["policy"]
    assert result["before"]["sessions"] == result["after"]["sessions"] == 4
    d = result["difference"]
    assert d["low"] <= d["value"] <= d["high"]
    change = result["after"]["rating"]["value"] - result["before"]["rating"]["value"]
    assert d["value"] == pytest.approx(change)
    people = {}
    for name in ("before", "after", "data/sessions"):
        with Store.open(f"sqlite:///{out / name}.sqlite3") as store:
            sessions = list(store.iter_sessions())
        people[name] = {persona_of(s).seed for s in sessions}
        spoke = {s.policy_id for s in sessions}
        assert spoke == {"tiny-llama" if name != "after" else f"tiny-llama+{result['promoted']}"}
    assert people["before"] == people["after"]
    assert not people["before"] & people["data/sessions"]
    stamps = {f: f.stat().st_mtime_ns for f in (out / "rounds").rglob("*.json")}
    again = closed_loop.run(loop, config, out)
    assert again == result
    assert {f: f.stat().st_mtime_ns for f in (out / "rounds").rglob("*.json")} == stamps
    text = "\n".join(closed_loop.lines(result))
    assert "4 fresh people called both policies" in text and "round 1: candidate" in text


def test_the_paired_interval_is_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    people = rng.normal(50, 20, size=60)
    shift = rng.normal(2, 1, size=60)
    d = paired((people + shift) - people, 0)
    assert d["value"] == pytest.approx(shift.mean())
    assert 1.5 < d["low"] < d["value"] < d["high"] < 2.5
