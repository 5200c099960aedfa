"""The processes of one run: the work is shared between them, what is known is not.

Every process knows the whole batch and draws the same random numbers; only passes of a network are
shared, in units (a micro-batch, a run of texts) that are cut and seeded alike for any number of
processes. What a run comes to then does not depend on how many there are, up to rounding, and a
checkpoint of one is that of the other.

`accelerate launch` (GPUs, several machines) and `--processes` (launch.py) start them.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from learning.errors import TrainingError

T = TypeVar("T")
U = TypeVar("U")

BUCKET = 16_000_000
"""Numbers that are summed over processes at a time (64 MB of gradients in float32)."""
PATIENCE_S = 3.0
"""How long a process waits before it tells an error that the first one may be telling too."""


def many() -> int:
    """How many processes the launcher says there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this process is the one that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


class Processes:
    """This process and the others of its run; alone, everything is a plain call.

    Args:
        world: how many there are.
        rank: which one this is; 0 writes files and prints.
        device: where its share is computed, as torch names it.
    """

    def __init__(self, world: int = 1, rank: int = 0, device: str = "cpu") -> None:
        self.world, self.rank, self.device = world, rank, device
        self.lockstep = False
        """All must do equally many passes: the weights lie in shards (policy/sharding.py)."""

    @classmethod
    def join(cls, device: str) -> Processes:
        """Meet the others that a launcher started; alone where it started none.

        Args:
            device: `cpu`, or of a process alone which GPU; of several each has its own.

        Raises:
            TrainingError: fewer GPUs here than processes.
        """
        if many() == 1:
            return cls(device=device)
        from accelerate import PartialState

        if device != "cpu":
            import torch

            here = int(os.environ.get("LOCAL_WORLD_SIZE", many()))
            if (gpus := torch.cuda.device_count()) < here:
                raise TrainingError(
                    f"{here} processes on this machine, which has {gpus or 'no'} CUDA "
                    f"device{'s' * (gpus != 1)}",
                    f"--processes {gpus}" if gpus else "device = 'cpu'",
                )

        # Functions there have the group that exists when they are loaded as a default value: it
        # would outlive `_leave`. Transformers loads it anyway, later.
        importlib.import_module("torch.distributed.fsdp")
        state = PartialState(cpu=device == "cpu")  # gloo on the CPU, else NCCL
        atexit.register(_leave)
        own = "cpu" if device == "cpu" else str(state.device)
        return cls(state.num_processes, state.process_index, own)

    @property
    def main(self) -> bool:
        """Whether this one writes files and prints."""
        return self.rank == 0

    def turns(self, n: int) -> Iterator[tuple[int, bool]]:
        """Which of n units are this process's, and whether it is to count.

        In lockstep every process has as many: who has none left does the last one once more, and
        it does not count.
        """
        for start in range(0, n, self.world):
            i = start + self.rank
            if i < n:
                yield i, True
            elif self.lockstep:
                yield n - 1, False

    def shared(self, items: Sequence[T], work: Callable[[T], U]) -> list[U]:
        """`work` of every item, each done by one process and told to all, in order.

        Args:
            items: the same in every process.
            work: its result is pickled where there are several processes.
        """
        mine = []
        for i, real in self.turns(len(items)):
            done = work(items[i])
            if real:
                mine.append(done)
        return self.gathered(mine)

    def gathered(self, mine: Sequence[T]) -> list[T]:
        """What each process has of its `turns`, all of it in order, in every process."""
        if self.world == 1:
            return list(mine)
        told: list[Any] = [None] * self.world
        _dist().all_gather_object(told, list(mine))
        return [part[k] for k in range(len(told[0])) for part in told if k < len(part)]

    def rows(self, n: int) -> list[list[int]]:
        """n rows dealt out to the processes, for work that is done for many at once."""
        return [part for r in range(self.world) if (part := list(range(r, n, self.world)))]

    def spread(self, n: int, work: Callable[[list[int]], Sequence[T]]) -> list[T]:
        """One value a row: each process works out those of its rows in one go.

        Args:
            n: rows.
            work: values of the rows with these numbers.
        """
        rows = self.rows(n)
        found: dict[int, T] = {}
        for part, values in zip(rows, self.shared(rows, work), strict=True):
            found |= dict(zip(part, values, strict=True))
        return [found[i] for i in range(n)]

    def add_gradients(self, parameters: Sequence[Any]) -> None:
        """Replace each gradient by the sum of all processes'; none counts as zeros."""
        if self.world == 1:
            return
        import torch

        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for bucket in _buckets([p.grad for p in parameters]):
            flat = torch.cat([g.flatten() for g in bucket])
            _dist().all_reduce(flat)
            at = 0
            for g in bucket:
                g.copy_(flat[at : at + g.numel()].view_as(g))
                at += g.numel()

    def taken(self, parameters: Sequence[Any]) -> Any:
        """This process's gradients of one unit, flat; none are left behind."""
        import torch

        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        )
        for p in parameters:
            p.grad = None
        return flat

    def add_in_order(
        self, parameters: Sequence[Any], parts: Sequence[tuple[Sequence[Any], int]]
    ) -> None:
        """Gradients of units added one after the other, as one process alone adds them.

        To the last bit: what two runs differ by in a first step, AdamW makes as large as a step.

        Args:
            parameters: whose gradients become the sum.
            parts: one after the other, what was `taken` of each of this process's `turns`, and
                how many units there are.
        """
        import torch

        total = torch.zeros(sum(p.numel() for p in parameters), device=self.device)
        nothing = torch.zeros_like(total)
        for mine, n in parts:
            for k in range(0, n, self.world):
                own = mine[k // self.world] if k // self.world < len(mine) else nothing
                told = [torch.empty_like(nothing) for _ in range(self.world)]
                _dist().all_gather(told, own)
                for flat in told[: n - k]:
                    total += flat
        at = 0
        for p in parameters:
            p.grad = total[at : at + p.numel()].view_as(p).clone()
            at += p.numel()

    def same(self, value: T) -> T:
        """The first process's value, for decisions that must not differ."""
        if self.world == 1:
            return value
        told = [value]
        _dist().broadcast_object_list(told)
        return told[0]

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of them."""
        if self.world == 1:
            return flag
        import torch

        told = torch.tensor([float(flag)], device=self.device)
        _dist().all_reduce(told)
        return bool(told.item() > 0)

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            _dist().barrier()


ALONE = Processes()


def _leave() -> None:
    """End the group and, where nothing else holds it, the threads behind it.

    A thread of gloo that is still about to let go of a tensor of ours when Python ends is ended by
    Python, and C++ aborts the process over that ("terminate called without an active exception").
    """
    if _dist().is_initialized():
        _dist().destroy_process_group()
        gc.collect()  # shards hold it, and each other


def _dist() -> Any:
    import torch.distributed

    return torch.distributed


def _buckets(tensors: Sequence[Any]) -> Iterator[list[Any]]:
    """Neighbours of one precision, up to `BUCKET` numbers together."""
    bucket: list[Any] = []
    size = 0
    for x in tensors:
        if bucket and (size + x.numel() > BUCKET or x.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(x)
        size += x.numel()
    if bucket:
        yield bucket


@contextmanager
def told_once() -> Iterator[None]:
    """An error of a run in several processes is one line, whichever of them it befalls.

    The launcher ends all when one ends. So a process other than the first waits a moment before it
    tells its error (the first one may have the same), and one that only lost the others waits too.
    """
    try:
        yield
    except Exception as error:
        if many() == 1:
            raise
        if _lost(error):
            time.sleep(2 * PATIENCE_S)
            raise TrainingError("another process of this run ended") from None
        if not first():
            time.sleep(PATIENCE_S)
        raise


def _lost(error: Exception) -> bool:
    """Whether it says that another process is gone."""
    if not isinstance(error, RuntimeError):
        return False
    words = str(error).lower()
    return type(error).__name__.startswith("Dist") or any(
        said in words for said in ("gloo", "nccl", "connection closed", "connection reset")
    )
