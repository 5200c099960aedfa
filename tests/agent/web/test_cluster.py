"""What workers say to each other: signatures, who is asked, and one that lost its lease."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from agent import leases
from agent.host import Host
from agent.leases import Worker
from agent.store import Store
from agent.web import cluster as module
from agent.web.cluster import PERSON, SECRET, SIGNATURE, Cluster, Inside, sign
from agent.web.elsewhere import ASKED_FREE, ASKED_FULL, worth_asking
from agent.web.health import Health
from tests import scripted
from tests.agent.stores import locked, url_of
from tests.agent.web.rig import config, serving, until

pytestmark = pytest.mark.transport

KEY = "a key that is shared by these workers alone"
HEADERS = {SECRET: "w.s", PERSON: "ada", "content-type": "application/json"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Says whose request it was."""
    person = scope["state"]["person"] or ""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": person.encode()})


async def test_only_what_was_signed_passes_and_once() -> None:
    now = 0.0
    inside = Inside(Health(), KEY, 100, clock=lambda: now)
    inside.app = echo
    transport = httpx.ASGITransport(inside)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://w") as http:

        async def ask(signature: str, **change: Any) -> httpx.Response:
            sent = {"method": "POST", "url": "/api/offer", "content": b"{}", "headers": HEADERS}
            sent |= change
            sent["headers"] = sent["headers"] | {SIGNATURE: signature}
            return await http.request(**sent)

        def signed(key: str = KEY, body: bytes = b"{}") -> str:
            return sign(key, "POST", "/api/offer", HEADERS, body)

        once = signed()
        now = float(once.split(".")[0])
        answer = await ask(once)
        assert (answer.status_code, answer.text) == (200, "ada")
        assert (await ask(once)).status_code == 403  # a second time
        for change in (
            {"method": "PUT"},
            {"url": "/api/sessions/x/hangup"},
            {"content": b"{ }"},
            {"headers": HEADERS | {PERSON: "eve"}},
            {"headers": HEADERS | {SECRET: "w.other"}},
        ):
            assert (await ask(signed(), **change)).status_code == 403, change
        for bad in (
            "",
            "x",
            "1.2.3",
            signed("another key that nobody shares with us"),
            signed() + "0",
        ):
            assert (await ask(bad)).status_code == 403
        long = b"x" * 101
        assert (await ask(signed(body=long), content=long)).status_code == 403
        late = signed()
        now += 31
        assert (await ask(late)).status_code == 403


async def test_a_worker_that_loads_says_so() -> None:
    inside = Inside(Health(), KEY, 100)
    transport = httpx.ASGITransport(inside)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://w") as http:
        assert (await http.get("/healthz")).json() == {"ok": True}
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"ready": False, "reason": "loading"})
        signature = sign(KEY, "GET", "/api/info", HEADERS, b"")
        asked = await http.get("/api/info", headers=HEADERS | {SIGNATURE: signature})
        assert asked.status_code == 503


def test_who_is_asked_to_take_a_call() -> None:
    def workers(count: int, **more: Any) -> list[Worker]:
        new = [Worker.new(4, "http://127.0.0.1:1", KEY) for _ in range(count)]
        return [dataclasses.replace(worker, **more) for worker in new]

    free, full, draining = workers(9), workers(9, live=4), workers(2, draining=True)
    asked = worth_asking([*free, *full, *draining])
    assert asked[:ASKED_FREE] == free[:ASKED_FREE]
    assert len(asked) == ASKED_FREE + ASKED_FULL
    assert all(worker in full for worker in asked[ASKED_FREE:])
    assert worth_asking(draining) == []


async def test_no_caller_can_pass_for_another_worker(tmp_path: Path) -> None:
    """Headers that workers send each other mean nothing on the public address."""
    with Store.open(url_of(tmp_path)) as store:
        async with serving(config(), store) as rig:
            rig.http.headers[PERSON] = "a" * 64
            page = await rig.call()
            assert store.get(page.id).person is None


async def test_the_store_goes_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ready while it is away; a running call that was closed meanwhile is taken up again."""
    monkeypatch.setattr(module, "BEAT_S", 0.1)
    with Store.open(url_of(tmp_path), busy_timeout_s=0.05) as store:
        async with serving(config(limits__concurrent_calls="1"), store) as rig:
            page = await rig.call()
            assert (await rig.http.get("/readyz")).json()["reason"] == "full"
            assert (await rig.http.get("/readyz?for=pages")).status_code == 200

            async def reason(wanted: str | None) -> None:
                async with asyncio.timeout(10):
                    found: Any = ""
                    while found != wanted:
                        found = (await rig.http.get("/readyz")).json().get("reason")
                        await asyncio.sleep(0.05)

            with locked(store):
                await reason("store")
                assert (await rig.http.get("/healthz")).status_code == 200
                assert (await rig.http.get("/readyz?for=pages")).status_code == 200
            await reason("full")
            # Others took it for dead: its session is closed, its row removed.
            with store.writing() as connection:
                connection.exec_driver_sql(
                    "UPDATE sessions SET owner = NULL, ended_how = 'crashed', ended_at = started_at"
                )
                connection.exec_driver_sql("DELETE FROM workers")
            await until(lambda: store.get(page.id).ended_how is None)
            assert len(leases.members(store)) == 1
            assert (await page.request("POST", "/hangup")).status_code == 204
            await until(lambda: page.of("ended"))
            assert store.get(page.id).ended_how == "hung_up"
            await page.drop_peer()
            await reason(None)
        assert leases.members(store) == []


async def test_a_worker_alone_has_nobody_to_ask(tmp_path: Path) -> None:
    with Store.open(url_of(tmp_path)) as store:
        host = Host(config(), store, scripted.engines())
        cluster = Cluster(host, Worker.new(4))
        other = Worker.new(4, "http://127.0.0.1:9", KEY)
        leases.register(store, other)
        assert await cluster.find(other.id) is None
        assert await cluster.look_around() == []
        await host.close()
