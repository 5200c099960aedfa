"""The buffer of received sound: order, loss, latecomers, wrap-around."""

from __future__ import annotations

import random

import pytest
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from agent.web.jitter import FAR, SEQUENCES, SoundBuffer

pytestmark = pytest.mark.unit


def through(numbers: list[int], held: int = 2) -> list[int | None]:
    """What comes out as these packets come in."""
    buffer = SoundBuffer(held)
    out: list[int | None] = []
    for number in numbers:
        packet = RtpPacket(sequence_number=number % SEQUENCES, timestamp=number * 960)
        packet._data = str(number).encode()  # type: ignore[attr-defined]
        key_frame, frame = buffer.add(packet)
        assert key_frame is False
        out.append(None if frame is None else int(frame.data))
        assert frame is None or frame.timestamp == int(frame.data) * 960
    return out


def test_in_order_each_waits_for_as_many_as_are_held() -> None:
    assert through([1, 2, 3, 4, 5], held=2) == [None, None, 1, 2, 3]
    assert through([1, 2, 3], held=0) == [1, 2, 3]


def test_what_comes_late_but_in_time_is_put_in_order() -> None:
    assert through([1, 2, 4, 3, 5, 6]) == [None, None, 1, 2, 3, 4]
    assert through([1, 2, 3, 5, 4, 6, 7, 8]) == [None, None, 1, 2, 3, 4, 5, 6]


def test_a_lost_one_is_skipped_and_no_other_with_it() -> None:
    assert through([1, 2, 4, 5, 6, 7]) == [None, None, 1, 2, 4, 5]


@given(st.sets(st.integers(0, 400)), st.integers(0, 4), st.integers(0, SEQUENCES - 1))
def test_only_what_is_lost_is_missing(lost: set[int], held: int, first: int) -> None:
    numbers = [first + k for k in range(400) if k not in lost]
    out = [number for number in through(numbers, held) if number is not None]
    assert out == numbers[: len(out)]
    assert len(numbers) - len(out) <= held


def test_it_never_falls_behind() -> None:
    """5 % lost: what comes out is never more than what is held and what was lost just now old."""
    chance = random.Random(1)  # noqa: S311
    numbers = [k for k in range(5000) if chance.random() >= 0.05]
    out = through(numbers)
    lags = [came - given for came, given in zip(numbers, out, strict=True) if given is not None]
    assert len(lags) >= len(numbers) - 400
    assert max(lags) <= 2 + 3
    assert sum(lags) / len(lags) < 2.3


def test_the_same_twice_and_what_is_too_late() -> None:
    out = through([1, 2, 2, 3, 1, 4, 2, 5])
    assert [n for n in out if n is not None] == [1, 2, 3]


def test_another_stream_begins_anew() -> None:
    assert through([1, 2, 3, 3 + FAR * 5, 4 + FAR * 5, 5 + FAR * 5])[-1] == 3 + FAR * 5
