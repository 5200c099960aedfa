"""Gradients of one optimizer step: of its micro-batches, added in their order whoever did them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from learning.policy.model import PolicyModel
from learning.processes import ALONE, Processes


class Gradients:
    """Of one step of the adapter and the value head.

    Args:
        model: whose passes they come from.
        processes: what shares the passes.
    """

    def __init__(self, model: PolicyModel, processes: Processes = ALONE) -> None:
        self.processes = processes
        self._parameters = [*model.adapter, *model.head.parameters()]
        self._parts: list[tuple[list[Any], int]] = []

    def turns(self, n: int) -> Iterator[tuple[int, bool]]:
        """As `Processes.turns`, a backward pass each; one that does not count must weigh 0."""
        if self.processes.world == 1:
            yield from self.processes.turns(n)
            return
        mine: list[Any] = []
        for i, real in self.processes.turns(n):
            yield i, real
            flat = self.processes.taken(self._parameters)
            if real:
                mine.append(flat)
        self._parts.append((mine, n))

    def add_up(self) -> None:
        """The sum of all units is the gradient, in every process."""
        if self.processes.world > 1:
            self.processes.add_in_order(self._parameters, self._parts)
