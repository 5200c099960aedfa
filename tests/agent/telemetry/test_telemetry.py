"""What an operator sees of real calls: metrics and traces, complete, true, and without a word."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.capacity import Pressure
from agent.records import Turn
from agent.store import Store
from tests import scripted
from tests.agent.telemetry.otlp import attributes, receiving
from tests.agent.web.rig import Page, Rig, config, serving, until

pytestmark = pytest.mark.transport

HEARD = "marmalade telescope"
SAID = "Juniper galoshes entirely."
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


def engines() -> Any:
    responder = scripted.ScriptedResponder(answer=lambda messages: SAID)
    return scripted.engines(words=lambda pcm: HEARD, responder=responder)


async def conversation(rig: Rig, page: Page) -> list[Turn]:
    """The greeting, an utterance, a reply; then the page hangs up."""
    call = rig.calls._entries[page.id].call
    await until(lambda: len(call.session.turns) == 1)
    await page.talk()
    await until(lambda: len(call.session.turns) == 3)
    return list(call.session.turns)


async def ended(page: Page) -> None:
    page.send({"type": "hangup"})
    await until(lambda: page.of("ended"))


async def scraped(rig: Rig, **headers: str) -> dict[str, float]:
    """Samples by name with labels."""
    answer = await rig.http.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert "version=0.0.4" in answer.headers["content-type"]
    return samples(answer.text)


def samples(text: str) -> dict[str, float]:
    """Samples by name with labels, of Prometheus' text format."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def test_a_call_in_the_metrics(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        async with serving(
            config(limits__concurrent_calls="1", dialogue__greeting="Hello"), store, engines()
        ) as rig:
            page = await rig.call(consent="learn")
            await conversation(rig, page)
            busy = await rig.page().post_offer()
            assert busy.status_code == 503
            await ended(page)
            assert (await page.request("POST", "/rating", json={"overall_affect": 80})).is_success
            text = (await rig.http.get("/metrics")).text
            found = await scraped(rig)
    print(text)
    assert found["geli_calls_started_total"] == 1
    assert found["geli_calls_ended_total{how=hung_up}"] == 1
    assert found["geli_offers_refused_total{reason=full}"] == 1
    assert found["geli_turns_total{interrupted=no,kind=utterance,speaker=user}"] == 1
    assert found["geli_turns_total{interrupted=no,kind=greeting,speaker=agent}"] == 1
    assert found["geli_policy_requests_total{outcome=ok}"] >= 1
    assert found["geli_overall_affect_count"] == 1
    assert found["geli_overall_affect_sum"] == 80
    assert found["geli_labels_total{label=unknown}"] >= 1
    assert found["geli_voice_to_voice_seconds_count"] == 1
    for stage in ("end_of_turn_wait", "transcription", "first_token", "first_audio"):
        assert found[f"geli_reply_stage_seconds_count{{stage={stage}}}"] == 1
    assert found["geli_lane_wait_seconds_count{lane=voice_activity}"] > 10
    assert found["geli_event_loop_lag_seconds_count"] > 10
    assert found["geli_process_resident_bytes"] > 1e7
    assert found["geli_process_cpu_seconds_total"] > 0
    assert found["geli_calls_cap"] == 1
    for secret in (page.id, page.secret, *HEARD.split(), *SAID.split()):
        assert secret not in text
    # Bounded: labels have a handful of values each, whatever is said and whoever calls.
    assert len(found) < 500


async def test_the_trace_of_a_call(tmp_path: Path) -> None:
    with receiving() as receiver, Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        settings = config(telemetry__otlp_endpoint=receiver.url, dialogue__greeting="Hello")
        async with serving(settings, store, engines()) as rig:
            page = rig.page()
            rig.http.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
            await page.call()
            turns = await conversation(rig, page)
            await ended(page)
    print("\n".join(receiver.tree()))
    assert receiver.paths == {"/v1/traces"}
    (root,) = receiver.named("call")
    assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}
    assert root.parent_span_id.hex() == PARENT
    assert attributes(root)["geli.session"] == page.id
    assert attributes(root)["geli.ended"] == "hung_up"
    assert attributes(root)["geli.turns"] == 3
    greeting, user, reply = receiver.under(root)
    assert [attributes(s)["geli.speaker"] for s in (greeting, user, reply)] == [
        "agent", "user", "agent",
    ]  # fmt: skip
    assert attributes(reply)["geli.policy"] == "scripted-policy"
    assert attributes(reply)["geli.engine.speaker"] == "scripted-speaker"
    stages = {span.name: span for span in receiver.under(reply)}
    assert set(stages) == {
        "end_of_turn_wait", "transcription", "first_token", "first_sentence", "first_audio",
        "playback",
    }  # fmt: skip
    # True times: as long as the record says, one after the other, within their turn.
    latency = turns[2].latency
    assert latency is not None
    for name in set(stages) - {"playback"}:
        took_ms = (stages[name].end_time_unix_nano - stages[name].start_time_unix_nano) / 1e6
        assert took_ms == pytest.approx(getattr(latency, f"{name}_ms"), abs=0.1), name
    said_at = stages["end_of_turn_wait"].start_time_unix_nano
    heard_at = stages["playback"].start_time_unix_nano
    assert (heard_at - said_at) / 1e6 == pytest.approx(latency.voice_to_voice_ms, abs=120)
    assert stages["transcription"].start_time_unix_nano >= said_at
    assert stages["first_audio"].start_time_unix_nano >= stages["first_token"].start_time_unix_nano
    for span in stages.values():
        assert reply.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= reply.end_time_unix_nano
    for word in (*HEARD.split(), *SAID.split(), page.secret):
        assert word.encode() not in receiver.raw
    assert page.id.encode() in receiver.raw  # the search would find something


async def test_a_call_that_nobody_keeps_is_not_traced(tmp_path: Path) -> None:
    with receiving() as receiver, Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        async with serving(config(telemetry__otlp_endpoint=receiver.url), store) as rig:
            page = await rig.call(consent="talk_only")
            await until(lambda: page.said())
            await ended(page)
            assert (await scraped(rig))["geli_calls_started_total"] == 1
    assert receiver.spans == []


async def test_a_receiver_that_is_away_hurts_no_call() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        away = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with serving(config(telemetry__otlp_endpoint=away)) as rig:
        page = await rig.call()
        await page.talk()
        await ended(page)
        assert page.of("ended")[0]["how"] == "hung_up"


async def test_an_overloaded_worker_takes_no_call() -> None:
    async with serving(config()) as rig:
        page = await rig.call()
        rig.calls.telemetry._sampling.cancel()
        rig.calls.telemetry.pressure = Pressure(overloaded=True)
        refused = await rig.page().post_offer()
        assert (refused.status_code, refused.json()["error"]) == (503, "the server is overloaded")
        assert float(refused.headers["retry-after"]) > 0
        ready = await rig.http.get("/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "overloaded")
        assert (await rig.http.get("/readyz?for=pages")).status_code == 200
        await until(lambda: page.said())  # the call that runs goes on
        assert (await scraped(rig))["geli_offers_refused_total{reason=overloaded}"] == 1


async def test_without_telemetry_there_is_none() -> None:
    async with serving(config(telemetry__metrics="false")) as rig:
        page = await rig.call()
        assert (await rig.http.get("/metrics")).status_code == 404
        call = rig.calls._entries[page.id].call
        assert type(call._observer).__name__ == "Observer"
        assert rig.host.lanes.on_wait is None


async def test_metrics_behind_the_token() -> None:
    token = "an-access-token-of-somebody"  # noqa: S105
    async with serving(config(server__access_token=token)) as rig:
        assert (await rig.http.get("/metrics")).status_code == 401
        assert await scraped(rig, Authorization=f"Bearer {token}")
    async with serving(config(server__trusted_proxies='["127.0.0.1"]')) as rig:
        assert (await rig.http.get("/metrics")).status_code == 403
