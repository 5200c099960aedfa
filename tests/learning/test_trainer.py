"""Training on made features: what it learns, when it stops, and that a killed run goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agent.learning_config import Reward
from learning.errors import TrainingError
from learning.fitting import Fitted, fit, predicted
from learning.metrics import spearman
from learning.turns import Turns
from tests.learning.samples import turns_with_signal

pytestmark = pytest.mark.unit
torch.set_num_threads(1)  # small matrices: a second thread only waits

QUICK = Reward(components=4, hidden=16, dropout=0.0, learning_rate=5e-3, epochs=15)


def parts(n: int = 450, lengths: tuple[int, int] = (4, 30)) -> tuple[Turns, Turns, Turns]:
    turns = turns_with_signal(n, lengths=lengths)
    ids = turns.bank.ids
    return (
        turns.pick(ids[: n // 2]),
        turns.pick(ids[n // 2 : 2 * n // 3]),
        turns.pick(ids[2 * n // 3 :]),
    )


def trained(**changes: object) -> tuple[Fitted, Turns]:
    train, validation, test = parts()
    return fit(train, validation, QUICK.model_copy(update=changes)), test


def mse(fitted: Fitted, test: Turns) -> float:
    guesses = predicted(fitted.rewards(test), test.bank, fitted.scale)
    return float(np.mean((guesses - test.bank.returns) ** 2))


@pytest.mark.parametrize("form", ["mean", "sum"])
@pytest.mark.parametrize("method", ["rrd", "ircr", "rudder"])
def test_every_method_predicts_better_than_the_mean(method: str, form: str) -> None:
    # The sum of dialogues of very different length says little else than their length.
    train, validation, test = parts(lengths=(12, 13) if form == "sum" else (4, 30))
    settings = QUICK.model_copy(update={"method": method, "form": form, "shaping": "none"})
    fitted = fit(train, validation, settings)
    assert mse(fitted, test) < 0.9 * float(test.bank.returns.var())


def test_rrd_finds_what_each_turn_contributes() -> None:
    fitted, test = trained(method="rrd", shaping="none", subset=8)
    assert spearman(fitted.rewards(test), test.bank.truth) > 0.7


def test_shaping_tells_positive_turns_apart_and_both_together_rank_best() -> None:
    both, test = trained(method="rrd", shaping="va", lambda_ge=0.5)
    rewards = both.rewards(test)
    li = test.bank.li
    assert rewards[li == 1].mean() > rewards[li == 0].mean()
    alone, _ = trained(method="rrd", shaping="none")
    rank = spearman(rewards, test.bank.truth)
    assert rank > spearman(alone.rewards(test), test.bank.truth) - 0.02


def test_labels_alone_learn_without_any_rating() -> None:
    train, validation, test = parts()
    for part in (train, validation):
        part.bank.returns[:] = np.nan
    fitted = fit(train, validation, QUICK.model_copy(update={"method": "rrd"}))
    assert spearman(fitted.rewards(test), test.bank.truth) > 0.5


def test_nothing_to_fit_is_said_in_a_line() -> None:
    train, validation, _ = parts()
    train.bank.returns[:] = np.nan
    train.bank.li[:] = np.nan
    with pytest.raises(TrainingError, match="nothing to fit"):
        fit(train, validation, QUICK)


@pytest.mark.parametrize("method", ["rrd", "rudder"])
def test_the_same_seed_gives_the_same_weights(method: str) -> None:
    first, _ = trained(method=method)
    again, _ = trained(method=method)
    other, _ = trained(method=method, seed=1)
    for a, b in zip(first.head.parameters(), again.head.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(first.head.parameters(), other.head.parameters(), strict=True)
    )


def test_a_run_that_was_killed_goes_on_to_the_same_result(tmp_path: Path) -> None:
    train, validation, _ = parts()
    settings = QUICK.model_copy(update={"dropout": 0.3})
    whole = fit(train, validation, settings)

    class Killed(BaseException):
        pass

    def kill(epoch: int) -> None:
        if epoch == 5:
            raise Killed

    with pytest.raises(Killed):
        fit(train, validation, settings, tmp_path, kill)
    torch.manual_seed(99)  # another process starts from another state
    resumed = fit(train, validation, settings, tmp_path)
    assert resumed.outcome.losses == whole.outcome.losses
    for a, b in zip(resumed.head.parameters(), whole.head.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_other_settings_or_garbage_is_refused(tmp_path: Path) -> None:
    train, validation, _ = parts()
    fit(train, validation, QUICK.model_copy(update={"epochs": 1}), tmp_path)
    with pytest.raises(TrainingError, match="other settings"):
        fit(train, validation, QUICK.model_copy(update={"lambda_ge": 0.9}), tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(TrainingError, match="not a checkpoint"):
        fit(train, validation, QUICK, tmp_path)


def test_it_stops_when_validation_no_longer_improves() -> None:
    fitted, _ = trained(epochs=200, patience=3, learning_rate=2e-2)
    done = fitted.outcome
    assert 3 < done.epochs < 200
    assert done.epochs - done.best_epoch == 3
    assert done.best_loss == min(held for _, held in done.losses)


def test_predicted_ratings_are_means_of_points_in_either_form() -> None:
    for form in ("mean", "sum"):
        fitted, test = trained(form=form)
        rewards = fitted.rewards(test)
        guesses = predicted(rewards, test.bank, fitted.scale)
        turns = test.bank.turns(3)
        if form == "sum":
            assert guesses[3] == pytest.approx(rewards[turns].sum())
        else:
            points = fitted.scale.mean + fitted.scale.sd * rewards[turns]
            assert guesses[3] == pytest.approx(points.mean())
