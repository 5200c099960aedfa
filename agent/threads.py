"""How torch's threads wait for each other on a machine that is not ours alone."""

from __future__ import annotations

import os

SPINS = "1000"
"""Turns of libgomp's waiting loop before a thread sleeps; its default is 300,000."""


def wait_briefly() -> None:
    """Let a waiting thread give its core up soon; call it before torch is loaded.

    Two threads on two cores, one of which another process keeps busy, else spend their time
    waiting for each other: a batch of replies took 186 s instead of 9 s here, and 4.4 s either way
    on the idle machine (`geli bench policy --busy 1`). A token of a call's policy took 155 ms of
    CPU beside other work, and 21 ms so. What the environment says already is kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
