"""Several workers as real processes: follow-ups through another one, draining, kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import leases
from agent.store import Store
from tests.agent.web.clusters import KEY, Balanced, Group, guessed, holder, nginx, over
from tests.agent.web.rig import until
from tests.agent.web.test_tls import certificate

pytestmark = pytest.mark.transport


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Group]:
    """Two workers of one machine on one address, one call each."""
    group = Group(
        f"sqlite:///{tmp_path}/s.sqlite3",
        *("--set", "limits.concurrent_calls=1", "--set", "server.drain_s=60"),
        data=tmp_path,
    )
    await group.start(2)
    yield group
    await group.end()


async def test_two_workers_of_one_machine(two: Group) -> None:
    """A full one hands an offer on; each follow-up finds its call; one drained, one killed."""
    async with over(f"http://127.0.0.1:{two.port}") as site:
        first, second = await site.call(), await site.call()
        assert {holder(first), holder(second)} == {w.id for w in two.workers()}
        full = await site.page().post_offer()
        assert (full.status_code, full.headers["retry-after"]) == (503, "10")
        assert full.json()["error"] == "all calls are taken"

        # Each request is a new connection, which either worker may take.
        for _ in range(12):
            assert (await first.status())["state"] == "live"
            assert (await second.status())["state"] == "live"
        wrong, second.secret = second.secret, guessed(second.secret)
        assert {(await second.request("GET")).status_code for _ in range(8)} == {403}
        second.secret = wrong
        await second.resume()
        assert (await second.status())["state"] == "live"
        await second.request("POST", "/hangup")
        await until(lambda: second.of("ended"))
        assert (
            await second.request("POST", "/rating", json={"overall_affect": 77})
        ).status_code == 204
        await second.close()

        # The worker of the running call is drained: the call goes on, new ones go to the other.
        drained = two.pid_of(holder(first))
        os.kill(drained, signal.SIGTERM)
        await until(lambda: any(w.draining for w in two.workers()))
        for _ in range(3):
            third = await site.call_when_free()
            assert holder(third) != holder(first)
            await third.request("POST", "/hangup")
            await until(lambda page=third: page.of("ended"))
            await third.close()
        assert (await first.status())["state"] == "live"
        await first.talk()
        before = holder(first)
        await first.request("POST", "/hangup")
        await until(lambda: first.of("ended"))
        assert first.of("ended")[0]["how"] == "hung_up"
        await until(lambda: two.output.count(" serves") == 3, 30)  # a fresh one in its place
        assert before not in {w.id for w in two.workers()}
        assert (
            await first.request("POST", "/rating", json={"overall_affect": 66})
        ).status_code == 204
        await first.close()

        # One is killed in a call: the session is closed, the worker replaced, the rating taken.
        lost = await site.call_when_free()
        await until(lost.heard)
        os.kill(two.pid_of(holder(lost)), signal.SIGKILL)
        await until(lambda: "died by signal 9" in two.output)
        await until(lambda: f"closed session {lost.id}" in two.output)
        await until(lambda: two.output.count(" serves") == 4, 30)
        assert len(two.workers()) == 2
        assert (await lost.post_offer(resume=True)).status_code == 410
        assert (await lost.status())["ended_how"] == "crashed"
        assert (
            await lost.request("POST", "/rating", json={"overall_affect": 55})
        ).status_code == 204
    with Store.open(two.store) as store:
        rated = {page.id: store.get(page.id) for page in (first, second, lost)}
    assert [s.overall_affect for s in rated.values()] == [66, 77, 55]
    assert [s.ended_how for s in rated.values()] == ["hung_up", "hung_up", "crashed"]
    assert await two.end() == 0
    assert "Traceback" not in two.output


async def test_one_that_said_it_was_full_is_asked_before_it_says_otherwise(tmp_path: Path) -> None:
    """Its call has just ended; who reads the store would turn the caller away for up to a beat."""
    words = ("--set", f'server.cluster_key="{KEY}"', "--set", "limits.concurrent_calls=1")
    here, there = groups = [
        Group(f"sqlite:///{tmp_path}/s.sqlite3", *words, data=tmp_path) for _ in range(2)
    ]
    try:
        for group in groups:
            await group.start(1)
        async with (
            over(f"http://127.0.0.1:{here.port}") as site,
            over(f"http://127.0.0.1:{there.port}") as other,
        ):
            await site.call()
            for _ in range(TRIES):
                full = await other.call_when_free()
                assert holder(full) == _owner(there)
                await until(lambda: all(worker.room == 0 for worker in here.workers()), 15)
                assert (await site.page().post_offer()).status_code == 503
                said = _last_word(there)
                await full.request("POST", "/hangup")
                await until(lambda page=full: page.of("ended"))
                await full.close()
                if await _taken(site, there, said):
                    return
            pytest.fail("turned away until the next heartbeat")
    finally:
        for group in groups:
            await group.end()


TRIES = 3
"""A heartbeat may fall just between the end of a call and the next offer."""


async def _taken(site: Balanced, by: Group, said: tuple[object, ...]) -> bool:
    """Whether a call that is offered here is taken by that worker before it has said more."""
    while _last_word(by) == said:
        page = site.page()
        answer = await page.post_offer()
        if answer.status_code == 200:
            page.id, page.secret = answer.json()["session_id"], answer.json()["secret"]
            assert holder(page) == _owner(by)
            in_time = _last_word(by) == said
            await page.request("POST", "/hangup")
            return in_time
        await page.close()
        await asyncio.sleep(0.1)
    return False


def _last_word(group: Group) -> tuple[object, ...]:
    with Store.open(group.store) as store, store.reading() as connection:
        query = "SELECT heartbeat_at, live FROM workers WHERE id = ?"
        return tuple(connection.exec_driver_sql(query, (_owner(group),)).one())


async def test_a_worker_that_cannot_begin_is_one_line(tmp_path: Path) -> None:
    """What a single server would say, said once, and no restart over and over."""
    words = (
        *("--set", "server.internal_host=192.0.2.1"),  # RFC 5737: an example, nobody's
        *("--set", f'server.cluster_key="{KEY}"'),
    )
    group = Group(f"sqlite:///{tmp_path}/s.sqlite3", *words, data=tmp_path)
    with pytest.raises(AssertionError):  # it ends before it says where the page is
        await group.start(2)
    assert group.process is not None
    async with asyncio.timeout(30):
        assert await group.process.wait() == 2
    (line,) = [line for line in group.output.splitlines() if line.startswith("geli: ")]
    assert line == (
        "geli: server.internal_host = '192.0.2.1', port 0: Cannot assign requested address — "
        "name an address of this machine, and a port that is free"
    )
    assert group.output.count(" started, process ") == 2


async def test_workers_end_with_their_parent(two: Group) -> None:
    pids = [two.pid_of(worker.id) for worker in two.workers()]
    async with over(f"http://127.0.0.1:{two.port}") as site:
        page = await site.call()
        await until(page.heard)
        assert two.process is not None
        two.process.kill()
        await until(lambda: page.of("ended"), 20)
    await until(lambda: not any(_runs(pid) for pid in pids), 30)
    with Store.open(two.store) as store:
        assert store.get(page.id).ended_how == "hung_up"
        assert leases.members(store) == []


async def test_a_second_signal_does_not_wait(two: Group) -> None:
    async with over(f"http://127.0.0.1:{two.port}") as site:
        page = await site.call()
        await until(page.heard)
        assert two.process is not None
        two.process.send_signal(signal.SIGTERM)
        await until(lambda: all(worker.draining for worker in two.workers()))
        assert not page.of("ended")
        two.process.send_signal(signal.SIGTERM)
        await until(lambda: page.of("ended"))
        async with asyncio.timeout(20):
            assert await two.process.wait() == 0
    with Store.open(two.store) as store:
        assert store.get(page.id).ended_how == "hung_up"


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_two_hosts_behind_nginx(url: str, tmp_path: Path) -> None:
    """Two programs with one store and one key; all requests go through the packaged nginx.conf."""
    words = (
        *("--set", f'server.cluster_key="{KEY}"', "--set", "server.drain_s=60"),
        *("--set", "server.person_tokens=true", "--set", "limits.concurrent_calls=2"),
    )
    hosts = [Group(url, *words, data=tmp_path) for _ in range(2)]
    pem = certificate(tmp_path)
    try:
        for host in hosts:
            await host.start(1)
        async with nginx(tmp_path, [host.port for host in hosts], pem) as address:
            await _follow_ups(address, hosts, url)
    finally:
        for host in hosts:
            assert await host.end() == 0


async def _follow_ups(address: str, hosts: list[Group], url: str) -> None:
    from agent import tokens

    with Store.open(url) as store:
        token, made = tokens.create(store, "ada", 7)
    allowed = {"Authorization": f"Bearer {token}"}
    async with over(address, verify=False, headers=allowed) as site:  # noqa: S501
        assert (await site.http.get("/readyz")).status_code == 404  # not for callers
        pages = [await _held(site) for _ in range(4)]
        held = {page.id: holder(page) for page in pages}
        assert sorted(held.values()) == sorted(w.id for w in hosts[0].workers() for _ in range(2))
        for page in pages:
            for _ in range(4):  # nginx takes turns
                assert (await page.status())["state"] == "live"
        gone = pages[0]
        left = await gone.request("POST", "/away", json={"secret": gone.secret})
        assert left.status_code == 204
        assert (await gone.status())["state"] == "away"
        await gone.resume()
        assert (await gone.status())["state"] == "live"
        assert (await gone.request("DELETE")).status_code == 204
        await gone.close()

        # One host drains: its calls go on, nginx still asks it, and it hands new ones on.
        drained = next(host for host in hosts if _owner(host) != held[gone.id])
        running = [page for page in pages if held[page.id] == _owner(drained)]
        assert drained.process is not None
        drained.process.send_signal(signal.SIGTERM)
        await until(lambda: any(w.draining for w in hosts[0].workers()))
        async with over(f"http://127.0.0.1:{drained.port}", headers=allowed) as there:
            late = await there.call()
            assert holder(late) == held[gone.id]
            with Store.open(url) as store:
                assert store.get(late.id).person == made.hash  # known there, told here
            await late.request("POST", "/hangup")
        for page in running:
            assert (await page.status())["state"] == "live"
            await page.request("POST", "/hangup")
            await until(lambda page=page: page.of("ended"))
        async with asyncio.timeout(20):
            assert await drained.process.wait() == 0
        # The host is off: nginx goes on with the other, which knows the rating's session.
        for page in running:
            rated = await page.request("POST", "/rating", json={"overall_affect": 90})
            assert rated.status_code == 204
        with Store.open(url) as store:
            assert {store.get(page.id).overall_affect for page in running} == {90}
            assert {store.get(page.id).person for page in running} == {made.hash}
            assert not store.has(gone.id)
            tokens.revoke(store, "ada")
        await until_refused(site)


async def until_refused(site: Balanced) -> None:
    """A revoked token is refused, within `REMEMBERED_S`."""
    async with asyncio.timeout(15):
        while (await site.http.get("/api/info")).status_code != 401:  # noqa: ASYNC110
            await asyncio.sleep(0.3)


async def _held(site: Balanced):  # type: ignore[no-untyped-def]
    page = await site.call()
    await until(page.heard)
    return page


def _owner(host: Group) -> str:
    assert host.process is not None
    (found,) = [w.id for w in host.workers() if int(w.owner.split("|")[1]) == host.process.pid]
    return found
