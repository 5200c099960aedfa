"""Waiting threads give a shared core up."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agent.threads import SPINS, wait_briefly

pytestmark = pytest.mark.unit


def test_what_the_environment_says_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    wait_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == SPINS


def test_the_command_line_says_so_before_torch_is_loaded() -> None:
    code = (
        "import os, sys; from agent.cli import main\n"
        "import learning.cli as c\n"
        "was = c.wait_briefly\n"
        "def look(): was(); print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])\n"
        "c.wait_briefly = look\n"
        "sys.argv = ['geli', 'learn', 'policies', 'list']; main()"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP", "OMP"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[0] == f"False {SPINS}"
