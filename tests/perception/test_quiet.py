"""Chatter is dropped, everything else on stderr arrives."""

from __future__ import annotations

import os

import pytest

from perception.quiet import chatter_dropped, is_chatter

pytestmark = pytest.mark.unit

CHATTER = [
    b"INFO: [environment.cc:36] Creating LiteRT environment with options",
    b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    b"WARNING: Logging before InitGoogle() is written to STDERR",
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    b"W0000 00:00:1795437492.496590   16060 inference_runner_litert.cc:1418] Input tensor",
]
NEWS = [
    b"ERROR: [compiled_model.cc:981] the model is broken",
    b"E0000 00:00:1795437492.496590   16060 calculator_graph.cc:1] failed",
    b"INFO: session 7 started",
    b"WARNING: the disk is nearly full",
    b"Traceback (most recent call last):",
    b"",
]


def test_only_known_lines_are_chatter() -> None:
    assert [line for line in CHATTER + NEWS if is_chatter(line)] == CHATTER


def test_what_is_no_chatter_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with chatter_dropped():
        for line in (CHATTER[0], NEWS[0], CHATTER[4], NEWS[3]):
            os.write(2, line + b"\n")
        with chatter_dropped():
            os.write(2, CHATTER[1] + b"\ninner\n")
        assert capfd.readouterr().err == ""
    lines = capfd.readouterr().err.splitlines()
    assert lines == [NEWS[0].decode(), NEWS[3].decode(), "inner"]


def test_a_failure_gives_the_descriptor_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), chatter_dropped():
        os.write(2, b"before it failed\n")
        raise RuntimeError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before it failed\nafter\n"
