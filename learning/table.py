"""The paper's Table 3 on any source: every decomposition, with and without shaping.

One job a seed: split, features, then every method on the same split. Its results are kept in the
output folder, so that a killed run goes on, and another method can be added later.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.bank import Bank, Floats
from learning.errors import DataError
from learning.features import NUMBERS
from learning.metrics import MEASURES, Estimate, Held, Resampled, interval, resample, sums_of
from learning.splits import By, split
from learning.turns import Turns

if TYPE_CHECKING:
    from agent.learning_config import Reward
    from learning.dialogue import Dataset

ALL = (
    "mean", "mode", "ridge", "ircr", "rudder", "rrd", "rrd160", "full", "va", "ls",
    "ircr+va", "rudder+va", "rrd+va", "ircr+ls", "rudder+ls", "rrd+ls",
)  # fmt: skip
"""Every row: `rrd` draws `[reward] subset` turns, `rrd160` 160 (both in the paper), `full` all of
them; `va` and `ls` alone are L_LI without L_GE; `ridge` is a regression on pooled features."""

MIN_SESSIONS = 10
"""Rated dialogues under which a split leaves nothing to measure on."""


@dataclass(slots=True, frozen=True)
class Row:
    """One method over all seeds."""

    method: str
    estimates: dict[str, Estimate]
    mse_over_mean: tuple[float, float, float] | None
    """MSE over the Mean row's on the same sessions: value, and its 95 % interval."""


@dataclass(slots=True, frozen=True)
class Table:
    """What `geli learn table` prints."""

    rows: tuple[Row, ...]
    source: str
    digest: str
    scale: tuple[float, float]
    li_source: str
    by: By
    seeds: tuple[int, ...]
    sessions: int
    """Rated dialogues held out, over all seeds, each counted once."""
    settings: dict[str, Any]
    dropped: dict[str, int]
    notes: tuple[str, ...]


def settings_of(method: str, base: Reward, seed: int) -> Reward:
    """The `[reward]` section of one row.

    Raises:
        DataError: no such row.
    """
    match = re.fullmatch(r"(mean|mode|ircr|rudder|rrd|full)(\d*)(?:\+(va|ls))?|(va|ls)", method)
    if (
        match is None
        or (match[2] and match[1] != "rrd")
        or (match[1] in ("mean", "mode") and match[3])
    ):
        raise DataError(f"no method {method!r}", f"'all', or some of {', '.join(ALL)}")
    change: dict[str, Any] = {"seed": seed, "shaping": match[3] or match[4] or "none"}
    change["method"] = {"full": "rrd", None: "mean"}.get(match[1], match[1])
    if match[1] == "full":
        change["subset"] = 0
    elif match[2]:
        change["subset"] = int(match[2])
    return base.model_copy(update=change)


def check(data: Dataset, methods: Sequence[str], base: Reward) -> None:
    """Refuse what would give a table of nothing.

    Raises:
        DataError: unknown method, too few rated dialogues, ratings all equal, or no label where a
            method needs them.
    """
    ratings = [d.rating for d in data.dialogues if d.rating is not None]
    if len(ratings) < MIN_SESSIONS:
        raise DataError(
            f"{data.source}: {len(ratings)} rated session{'s' * (len(ratings) != 1)}, "
            f"a table needs {MIN_SESSIONS}",
            "rate sessions ('geli sessions rate'), or take another --data",
        )
    if max(ratings) - min(ratings) < 1e-9:
        raise DataError(
            f"{data.source}: all {len(ratings)} ratings are {ratings[0]:g}",
            "there is nothing to tell apart: collect sessions that felt different",
        )
    shaped = [m for m in methods if m != "ridge" and settings_of(m, base, 0).shaping == "va"]
    labels = {d.turns[i].li for d in data.dialogues for i in d.scored} - {None}
    if shaped and len(labels) < 2:
        what = f"every label is {labels.pop()}" if labels else "no turn has a label (no faces seen)"
        others = [m for m in ALL if not m.endswith("va")]
        raise DataError(
            f"{data.source}: {what}, so {', '.join(shaped)} cannot be shaped",
            f"leave them out: --methods {','.join(others)}",
        )


def build(
    data: Dataset,
    turns: Turns,
    base: Reward,
    methods: Sequence[str],
    seeds: Sequence[int],
    by: By,
    folder: Path,
    processes: int = 1,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Table:
    """Train every row on every seed's split and measure it on the held-out part.

    Args:
        data: where it comes from.
        turns: all of its scored turns.
        base: `[reward]`; method, shaping, subset and seed are the row's and the run's.
        methods: rows, see `ALL`.
        seeds: one split and one training each.
        by: what a split keeps together.
        folder: where results are kept; what is there already is not computed again.
        processes: seeds at a time.
        on_progress: told how many rows of all seeds are done.
    """
    held: dict[str, list[Held]] = {m: [] for m in methods}
    tag = _tag(data, base, by)
    jobs = []
    for seed in seeds:
        parts = split(data.dialogues, seed, by)
        place = folder / f"{tag}-seed{seed}"
        place.mkdir(parents=True, exist_ok=True)
        jobs.append((parts.train, parts.validation, parts.test, seed, place))
    done = 0
    for job, saved in _run(turns, base, methods, jobs, processes, folder):
        test = turns.pick(job[2]).bank
        for method in methods:
            guesses, rewards = saved[method]
            held[method].append(sums_of(test, guesses, rewards))
        done += len(methods)
        on_progress(done)
    resampled = {m: resample(h) for m, h in held.items()}
    rows = tuple(
        Row(m, {x: r.estimate(x) for x in MEASURES}, _over(r, resampled.get("mean")))
        for m, r in resampled.items()
    )
    rated = {d.id for d in data.dialogues if d.rating is not None}
    tested = {i for job in jobs for i in job[2]} & rated
    return Table(
        rows,
        data.source,
        data.digest,
        data.scale,
        data.li_source,
        by,
        tuple(seeds),
        len(tested),
        base.model_dump(mode="json", exclude={"method", "shaping", "seed"}),
        data.dropped,
        data.notes,
    )


def _over(row: Resampled, mean: Resampled | None) -> tuple[float, float, float] | None:
    if mean is None:
        return None
    low, high = interval(row.draws["mse"] / mean.draws["mse"])
    return row.value["mse"] / mean.value["mse"], low, high


def _tag(data: Dataset, base: Reward, by: By) -> str:
    settings = base.model_dump(mode="json", exclude={"method", "shaping", "seed"})
    content = json.dumps([data.digest, settings, NUMBERS, by], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:10]


Job = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], int, Path]
Saved = dict[str, tuple[Floats, Floats]]


def _run(
    turns: Turns,
    base: Reward,
    methods: Sequence[str],
    jobs: list[Job],
    processes: int,
    folder: Path,
) -> Any:
    """Each job with its results, in order of the jobs."""
    if processes <= 1 or len(jobs) == 1:
        for job in jobs:
            yield job, one_seed(turns, base, methods, job)
        return
    import multiprocessing
    import tempfile
    from concurrent.futures import ProcessPoolExecutor

    with tempfile.TemporaryDirectory(dir=folder, prefix=".turns-") as shared:
        turns.save(Path(shared))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _begin, (shared, turns.bank)) as pool:
            futures = [pool.submit(_in_worker, base, tuple(methods), job) for job in jobs]
            for job, future in zip(jobs, futures, strict=True):
                yield job, future.result()


_shared: Turns | None = None


def _begin(folder: str, bank: Bank) -> None:
    global _shared
    import torch

    torch.set_num_threads(1)
    _shared = Turns.load(Path(folder), bank)


def _in_worker(base: Reward, methods: tuple[str, ...], job: Job) -> Saved:
    assert _shared is not None
    return one_seed(_shared, base, methods, job)


def one_seed(turns: Turns, base: Reward, methods: Sequence[str], job: Job) -> Saved:
    """Every method on one split: predicted ratings [dialogues] and shown rewards [turns]."""
    import torch

    train_ids, validation_ids, test_ids, seed, folder = job
    out: Saved = {}
    for method in methods:
        file = folder / f"{method}.npz"
        if file.is_file():
            with np.load(file) as saved:
                out[method] = (saved["guesses"], saved["rewards"])
    missing = [m for m in methods if m not in out]
    if not missing:
        return out
    train, validation, test = (turns.pick(i) for i in (train_ids, validation_ids, test_ids))
    kept = _OneSplit(train, validation, test, base, seed)
    torch.set_num_threads(1)  # small matrices: a second thread only waits
    for method in missing:
        out[method] = kept.row(method)
        beside = folder / f".{method}.{os.getpid()}.npz"
        np.savez(beside, guesses=out[method][0], rewards=out[method][1])
        os.replace(beside, folder / f"{method}.npz")
    return out


class _OneSplit:
    """One split, and what its rows share: the projection and RUDDER's credit."""

    def __init__(
        self, train: Turns, validation: Turns, test: Turns, base: Reward, seed: int
    ) -> None:
        from learning.fitting import project

        self.train, self.validation, self.test = train, validation, test
        self.base, self.seed = base, seed
        self.projection = project(train, base)
        self.credit: Floats | None = None

    def row(self, method: str) -> tuple[Floats, Floats]:
        from learning.fitting import fit, predicted, rudder

        if method in ("mean", "mode"):
            return self._constant(method)
        if method == "ridge":
            return self._ridge()
        settings = settings_of(method, self.base, self.seed)
        if settings.method == "rudder" and self.credit is None:
            self.credit = rudder(self.train, self.validation, settings, self.projection)
        credit = self.credit if settings.method == "rudder" else None
        made = fit(self.train, self.validation, settings, projection=self.projection, credit=credit)
        rewards = made.rewards(self.test)
        return predicted(rewards, self.test.bank, made.scale), made.scale.column(rewards)

    def _constant(self, method: str) -> tuple[Floats, Floats]:
        ratings = self.train.bank.returns[self.train.bank.rated]
        if method == "mean":
            value = float(ratings.mean())
        else:
            values, counts = np.unique(ratings, return_counts=True)
            value = float(values[counts.argmax()])
        bank = self.test.bank
        share = (
            value / 100
            if self.base.form == "mean"
            else value / float(self.train.bank.length.mean())
        )
        return np.full(len(bank.ids), value), np.full(len(bank.li), share)

    def _ridge(self) -> tuple[Floats, Floats]:
        """Pooled features and log length; linear, so it decomposes over the turns by itself."""
        from learning.ridge import fit as fit_ridge

        model = fit_ridge(self.train, self.validation, self.projection)
        guesses, points = model(self.test)
        if self.base.form == "mean":
            return guesses, points / 100
        return guesses, points / np.repeat(self.test.bank.length, self.test.bank.length)


def finite(value: float) -> float | None:
    """JSON has no NaN: what could not be measured is null."""
    return value if math.isfinite(value) else None
