"""`geli call` as a child process: its one-line refusals, and how Ctrl-C ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent import leases
from agent.records import EndedHow
from agent.store import Store
from tests.agent.web.clusters import guessed
from tests.agent.web.rig import Page, config, until
from tests.bench.transport import _Remote

pytestmark = pytest.mark.transport

ROOT = Path(__file__).parents[3]
SCRIPTED = """
import sys
import agent.host, agent.weights
from tests import scripted
agent.host.build = lambda config: scripted.engines()
agent.weights.ensure_all = lambda config: None
from agent.cli import main
sys.argv[1:] = ["call", "--set", "perception.enabled=false", *sys.argv[1:]]
main()
"""
"""The real command with engines that need no weights."""


def geli_call(*words: str, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPTED, *words],
        cwd=ROOT,
        env=os.environ | {"GELI_DATA": str(data)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def refused(*words: str, data: Path) -> str:
    """The one line on stderr of a command that ends with exit code 2."""
    done = geli_call(*words, data=data)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("geli: ")
    return line


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused("--port", port, data=tmp_path)
    assert f"127.0.0.1:{port} is in use" in line
    assert "--port" in line


def test_addresses_that_cannot_be_served(tmp_path: Path) -> None:
    assert "is not loopback and needs" in refused("--host", "0.0.0.0", data=tmp_path)  # noqa: S104
    # Neither an address nor a name that is known to stay here, whatever it begins with.
    assert "is not loopback and needs" in refused("--host", "127.0.0.256", data=tmp_path)


def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    files = ("--set", f"server.tls_certificate={certificate}", "--set", f"server.tls_key={key}")
    assert "server.tls_key is missing" in refused(*files[:2], data=tmp_path)
    assert f"{certificate}: No such file" in refused(*files, data=tmp_path)
    certificate.write_text("nonsense")
    key.write_text("nonsense")
    assert "not usable for TLS" in refused(*files, data=tmp_path)


def test_ice_servers_that_cannot_be(tmp_path: Path) -> None:
    bogus = ("--set", 'server.ice_servers=[{urls=["http://x"]}]')
    assert "'http://x' is no STUN or TURN address" in refused(*bogus, data=tmp_path)
    relay = ("--set", "server.relay_only=true")
    assert "needs a relay" in refused(*relay, data=tmp_path)


async def start(data: Path, *words: str) -> tuple[Any, str]:
    """The server as a child process, and its address."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPTED,
        "--port",
        "0",
        *words,
        cwd=ROOT,
        env=os.environ | {"GELI_DATA": str(data)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    line = (await child.stdout.readline()).decode()
    assert line.startswith("open http://127.0.0.1:")
    return child, line.split()[1].rstrip("/")


@pytest.mark.parametrize(
    ("signals", "drain_s", "how"),
    [
        ([signal.SIGINT], 600, "hung_up"),
        ([signal.SIGTERM], 0.2, "timed_out"),
        ([signal.SIGTERM, signal.SIGTERM], 600, "hung_up"),
    ],
)
async def test_a_signal_ends_calls_politely(
    signals: list[signal.Signals], drain_s: float, how: str, tmp_path: Path
) -> None:
    child, url = await start(tmp_path, "--set", f"server.drain_s={drain_s}")
    try:
        async with httpx.AsyncClient(base_url=url) as http:
            remote: Any = _Remote(url, config(), http)
            page = Page(remote)
            await page.call()
            await until(page.heard)
            for number in signals:
                child.send_signal(number)
                await asyncio.sleep(0.3)
            await until(lambda: page.of("ended"))
            assert page.of("ended")[0]["how"] == how
            await page.close()
        _, errors = await asyncio.wait_for(child.communicate(), 15)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0, errors.decode()
    assert b"Traceback" not in errors
    with Store.open(f"sqlite:///{tmp_path}/sessions.sqlite3") as store:
        assert store.get(page.id).ended_how == how
        assert leases.members(store) == []


async def test_a_drained_server_takes_no_call_and_ends_with_its_last(tmp_path: Path) -> None:
    child, url = await start(tmp_path, "--set", "server.drain_s=600")
    try:
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/readyz")).json() == {"ready": True}
            page = Page(_Remote(url, config(), http))  # type: ignore[arg-type]
            await page.call()
            child.send_signal(signal.SIGTERM)
            ready = await http.get("/readyz")
            while ready.status_code == 200:
                ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()) == (
                503,
                {"ready": False, "reason": "draining"},
            )
            assert (await http.get("/healthz")).json() == {"ok": True}
            refused = await Page(page.rig).post_offer()
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "10"
            await until(page.heard)
            assert (await page.status())["state"] == "live"
            await page.request("POST", "/hangup")
            await until(lambda: page.of("ended"))
            await page.close()
        _, errors = await asyncio.wait_for(child.communicate(), 15)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0, errors.decode()


async def test_a_rating_reaches_a_call_of_the_server_before(tmp_path: Path) -> None:
    """Whoever rated must be heard, though the process that held the call is gone."""
    first, url = await start(tmp_path)
    async with httpx.AsyncClient(base_url=url) as http:
        page = Page(_Remote(url, config(), http))  # type: ignore[arg-type]
        await page.call()
        await until(page.heard)
        first.kill()
        await first.wait()
        await page.close()
    second, url = await start(tmp_path)
    try:
        async with httpx.AsyncClient(base_url=url) as http:
            page.rig = _Remote(url, config(), http)  # type: ignore[assignment]
            assert await page.status() == {
                "state": "ended", "ended_how": "crashed", "can_rate": True, "rated": False,
            }  # fmt: skip
            assert (await page.post_offer(resume=True)).status_code == 410
            right, page.secret = page.secret, guessed(page.secret)
            assert (
                await page.request("POST", "/rating", json={"overall_affect": 1})
            ).status_code == 403
            page.secret = right
            assert (
                await page.request("POST", "/rating", json={"overall_affect": 101})
            ).status_code == 422
            rated = await page.request(
                "POST", "/rating", json={"overall_affect": 81, "comment": " x "}
            )
            assert rated.status_code == 204
            assert (await page.status())["rated"] is True
            with Store.open(f"sqlite:///{tmp_path}/sessions.sqlite3") as store:
                found = store.get(page.id)
                assert (found.overall_affect, found.overall_affect_source, found.comment) == (
                    81,
                    "page",
                    "x",
                )
                assert (await page.request("DELETE")).status_code == 204
                assert not store.has(page.id)
            assert (await page.request("GET")).status_code == 410
            await page.close()
    finally:
        second.terminate()
        await second.communicate()


async def test_a_killed_server_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    first, url = await start(tmp_path)
    async with httpx.AsyncClient(base_url=url) as http:
        page = Page(_Remote(url, config(), http))  # type: ignore[arg-type]
        await page.call()
        await until(lambda: any(m["final"] for m in page.of("caption")), 20)
        await asyncio.sleep(0.3)
        first.kill()
        await first.wait()
        await page.close()
    second, _ = await start(tmp_path)
    second.terminate()
    _, errors = await second.communicate()
    assert f"closed session {page.id}, which a crash left open" in errors.decode()
    with Store.open(f"sqlite:///{tmp_path}/sessions.sqlite3") as store:
        session = store.get(page.id)
    assert session.ended_how is EndedHow.CRASHED
    assert [turn.kind for turn in session.turns] == ["greeting"]
