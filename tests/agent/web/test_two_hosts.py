"""A caller and a worker on two hosts, with a network between them that loses and delays."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.store import Store
from tests.agent.web.rig import until
from tests.agent.web.test_tls import certificate
from tests.agent.web.wire import ROOT, cannot, namespaces, two_hosts

pytestmark = pytest.mark.transport

LOSS, DELAY_S = 0.05, 0.04
TOKEN = "a token for this network"  # noqa: S105
PORT = 7860


async def test_a_call_survives_loss_and_delay(tmp_path: Path) -> None:
    """5 % of all frames are lost each way, the others take 40 ms: the greeting is heard, turns are
    answered, the rating arrives, and the session is whole."""
    if why := cannot():
        pytest.skip(why)
    pem, key = certificate(tmp_path)
    sets = [
        f"server.tls_certificate={pem}", f"server.tls_key={key}",
        f'server.access_token="{TOKEN}"', f'store.url="sqlite:///{tmp_path}/s.sqlite3"',
    ]  # fmt: skip
    async with two_hosts(LOSS, DELAY_S, seed=5) as hosts:
        address = hosts.addresses[0]
        words = ["--host", address, "--port", str(PORT), "--workers", "2"]
        words += [word for one in sets for word in ("--set", one)]
        served = tmp_path / "geli.log"
        with served.open("w") as log:
            server = await asyncio.create_subprocess_exec(
                *hosts.command(0, sys.executable, "tests/agent/web/serve_scripted.py", *words),
                cwd=ROOT, env=_environment(tmp_path), stdout=log, stderr=log,
            )  # fmt: skip
        try:
            await until(lambda: served.read_text().count(" serves") == 2, 60)
            told = await _held(hosts.command(1, sys.executable, "-m", "tests.agent.web.far_peer",
                                             f"https://{address}:{PORT}", TOKEN))  # fmt: skip
        finally:
            if server.returncode is None:
                server.terminate()
                async with asyncio.timeout(40):
                    await server.wait()
        assert server.returncode == 0, served.read_text()
    assert hosts.counted is not None
    share = hosts.counted["lost"] / hosts.counted["frames"]
    print({**told, **hosts.counted})
    assert hosts.counted["frames"] > 500
    assert 0.03 < share < 0.07
    assert (told["state"], told["ended"], told["rated"]) == ("live", "hung_up", 204)
    assert told["said"] >= 3  # the greeting and two answers
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        session = store.get(told["session"])
    assert session.overall_affect == 70
    kinds = [turn.kind for turn in session.turns]
    assert kinds[0] == "greeting"
    assert kinds.count("reply") >= 2
    assert kinds.count("utterance") >= 2
    assert not namespaces() & set(hosts.names)


async def _held(command: tuple[str, ...]) -> dict[str, Any]:
    peer = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(120):
            out, errors = await peer.communicate()
    finally:
        if peer.returncode is None:
            peer.kill()
            await peer.wait()
    assert peer.returncode == 0, errors.decode()
    told: dict[str, Any] = json.loads(out)
    return told


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {"GELI_DATA": str(folder), "PYTHONPATH": str(ROOT)}
