"""Several real processes over gloo: what they tell each other, and rewards trained by two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agent import config as configs
from learning.processes import ALONE, Processes
from tests.learning import tiny
from tests.learning.launching import run

pytestmark = pytest.mark.e2e
torch.set_num_threads(1)

TELL = """
import json, sys, torch
from learning.processes import Processes
from tests.learning.launching import ends_no_thread

ends_no_thread()
p = Processes.join("cpu")
out = {"rank": p.rank, "world": p.world, "main": p.main}
out["shared"] = p.shared(list("abcde"), str.upper)
out["few"] = p.shared(["x"], str.upper), p.shared([], str.upper)
out["spread"] = p.spread(5, lambda rows: [10 * i + p.rank for i in rows])
out["same"] = p.same({"from": p.rank})
out["any"] = [p.any(p.rank == 1), p.any(False)]
a, b = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2).bfloat16())
a.grad = torch.arange(3.0) * (p.rank + 1)
if p.rank:
    b.grad = torch.ones(2, 2).bfloat16()
p.add_gradients([a, b])
out["gradients"] = [a.grad.tolist(), b.grad.tolist()]
out["turns"] = list(p.turns(3))
p.lockstep = True
out["lockstep"] = list(p.turns(3))
out["lockstep_shared"] = p.shared([0, 1, 2], lambda x: x)
p.wait()
print(json.dumps(out))
"""

TRAIN = """
import json, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from learning.processes import Processes
from tests.learning.launching import ends_no_thread
from tests.learning.test_processes import trained

ends_no_thread()
place, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
processes = Processes.join("cpu")
print(json.dumps([trained(place, *job, processes) for job in jobs]))
"""

QUICK = {"epochs": 3, "subset": 3, "batch_turns": 12, "learning_rate": 1e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    "frozen": {"trainable": False, "dropout": 0.3},
    "fine-tuned": {"trainable": True, "method": "rrd", "dropout": 0.3, "micro_batch": 4},
    "one-dialogue": {"trainable": True, "method": "ircr", "labels": "raw", "batch_dialogues": 1},
    "unbiased": {"trainable": True, "shaping": "none", "unbiased": True, "micro_batch": 3},
}


class Stopped(Exception):
    pass


def trained(
    place: Path, name: str, changes: dict[str, Any], stop: int, processes: Processes = ALONE
) -> Any:
    """Losses and held-out MSE of one run; None of a run that was stopped after some epochs."""
    from learning import reward
    from learning.evaluate import evaluate
    from tests.learning.test_reward import dialogues

    def on_progress(what: str, done: float, _: float) -> None:
        if what == "training" and done == stop:
            raise Stopped

    (place / name).mkdir(parents=True, exist_ok=True)
    config = configs.load(
        "cpu", [f"models.paths={{tiny = '{place / 'bert'}'}}", "reward.encoder=tiny"]
    )
    reward_settings = config.reward.model_copy(update={"components": 8} | QUICK | changes)
    config = config.model_copy(update={"reward": reward_settings})
    data = dialogues(24)
    try:
        made, outcome = reward.train(
            data[:16], data[16:20], config, place / name, on_progress=on_progress,
            processes=processes,
        )  # fmt: skip
    except Stopped:
        return None
    found = evaluate(made, data[20:], data[:16], 200, processes)
    return {"losses": [list(pair) for pair in outcome.losses], "mse": found["mse"]}


def difference(one: Path, other: Path) -> float:
    """Largest between two rewards' numbers."""
    a, b = (load_file(folder / "reward.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def test_alone_everything_is_a_plain_call() -> None:
    assert ALONE.main and ALONE.shared([1, 2], lambda x: x + 1) == [2, 3]
    assert ALONE.spread(3, lambda rows: rows) == [0, 1, 2]
    assert ALONE.same("x") == "x" and ALONE.any(True) and list(ALONE.turns(2))[1] == (1, True)
    assert Processes(3, 1).rows(5) == [[0, 3], [1, 4], [2]]
    assert Processes(3, 1).rows(2) == [[0], [1]]


def test_all_know_what_each_did(tmp_path: Path) -> None:
    n = 3
    script = tmp_path / "tell.py"
    script.write_text(TELL)
    done = run(script, processes=n)
    assert [p.returncode for p in done] == [0] * n, done[0].stderr
    found = [json.loads(p.stdout) for p in done]
    assert [(f["rank"], f["world"], f["main"]) for f in found] == [(i, n, i == 0) for i in range(n)]
    sums = n * (n + 1) / 2
    for f in found:
        assert f["shared"] == list("ABCDE") and f["few"] == [["X"], []]
        assert f["spread"] == [10 * i + i % n for i in range(5)]
        assert f["same"] == {"from": 0} and f["any"] == [True, False]
        assert f["gradients"] == [[0, sums, 2 * sums], [[n - 1] * 2] * 2]
        assert f["lockstep_shared"] == [0, 1, 2]
    turns = sorted(i for f in found for i, _ in f["turns"])
    assert turns == [0, 1, 2]
    assert len({len(f["lockstep"]) for f in found}) == 1
    assert sorted(i for f in found for i, real in f["lockstep"] if real) == [0, 1, 2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("rewards")
    tiny.encoder(made / "bert", "bert")
    return made


@pytest.fixture(scope="module")
def by_two(place: Path) -> dict[str, Any]:
    """All that two processes train, in one launch: by name what the run came to."""
    more = VARIANTS["fine-tuned"] | {"epochs": 4}
    trained(place, "one then two", more, 2)
    jobs: list[tuple[str, dict[str, Any], int]] = [
        *((f"two {name}", changes, -1) for name, changes in VARIANTS.items()),
        ("again", VARIANTS["fine-tuned"], -1),
        ("one then two", more, -1),
        ("two then one", more, 2),
    ]
    script = place / "train.py"
    script.write_text(TRAIN)
    done = run(script, str(place), json.dumps(jobs), processes=2)
    assert [p.returncode for p in done] == [0, 0], done[0].stderr + done[1].stderr
    first, second = (json.loads(p.stdout) for p in done)
    assert first == second
    return {name: found for (name, _, _), found in zip(jobs, first, strict=True)}


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_train_the_reward_of_one(
    name: str, place: Path, by_two: dict[str, Any]
) -> None:
    one, two = trained(place, f"one {name}", VARIANTS[name], -1), by_two[f"two {name}"]
    for a, b in zip(one["losses"], two["losses"], strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    assert one["losses"][0] != pytest.approx(one["losses"][-1], rel=1e-3)  # it learned something
    assert one["mse"] == pytest.approx(two["mse"], rel=1e-3)
    apart = difference(place / f"one {name}", place / f"two {name}")
    print(f"{name}: losses {one['losses']} {two['losses']}, weights {apart:.2e} apart")
    assert apart < 2e-4


def test_two_processes_come_to_the_same_twice(place: Path, by_two: dict[str, Any]) -> None:
    assert by_two["again"] == by_two["two fine-tuned"]
    assert difference(place / "again", place / "two fine-tuned") == 0


def test_a_reward_begun_by_one_number_of_processes_is_ended_by_another(
    place: Path, by_two: dict[str, Any]
) -> None:
    more = VARIANTS["fine-tuned"] | {"epochs": 4}
    whole = trained(place, "whole", more, -1)
    assert by_two["two then one"] is None
    by_two["two then one"] = trained(place, "two then one", more, -1)
    for name in ("one then two", "two then one"):
        assert len(by_two[name]["losses"]) == 4
        for a, b in zip(whole["losses"], by_two[name]["losses"], strict=True):
            assert a == pytest.approx(b, rel=1e-4)
        apart = difference(place / "whole", place / name)
        print(f"{name}: weights {apart:.2e} apart")
        assert apart < 2e-4
