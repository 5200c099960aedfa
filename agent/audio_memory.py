"""The received audio of the last minutes, by sample number and by session time."""

from __future__ import annotations

import numpy as np

from agent.engines.protocols import SAMPLE_RATE_HZ, Pcm


class AudioMemory:
    """The last seconds of received audio by sample number. Kept in memory only."""

    def __init__(self, seconds: float) -> None:
        self._keep = int(seconds * SAMPLE_RATE_HZ)
        self._data = np.zeros(2 * self._keep, np.float32)
        self._begin = 0  # sample number of _data[0]
        self.end = 0
        """Samples received so far."""

    @property
    def end_s(self) -> float:
        """Seconds received so far."""
        return self.end / SAMPLE_RATE_HZ

    def append(self, pcm: Pcm) -> None:
        """Add samples; the oldest go when there are too many."""
        used = self.end - self._begin
        if used + len(pcm) > len(self._data):
            kept = min(used, self._keep)
            self._data[:kept] = self._data[used - kept : used].copy()
            self._begin = self.end - kept
            used = kept
        self._data[used : used + len(pcm)] = pcm
        self.end += len(pcm)

    def samples(self, begin: int, end: int) -> Pcm:
        """A copy of samples number `begin` to `end`, as far as they are still there."""
        begin, end = max(begin, self._begin), min(end, self.end)
        return self._data[begin - self._begin : max(begin, end) - self._begin].copy()

    def between(self, start_s: float, end_s: float) -> Pcm:
        """A copy of what was received from `start_s` to `end_s`."""
        return self.samples(round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ))
