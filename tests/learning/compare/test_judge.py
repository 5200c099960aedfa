"""The judge against a real local HTTP server: blindness, both orders, bias, retries, resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import EngineError
from agent.learning_config import Judge
from learning.compare.judge import Judged, judge, requests_of
from learning.compare.judge_answers import parse
from learning.compare.judge_client import TRIES, Client
from learning.compare.questions import METRICS, QUESTIONS
from learning.dialogue import Utterance
from learning.errors import DataError
from tests.learning.compare.fake_judge import FakeJudge, Reply, serving, shown, verdict

pytestmark = pytest.mark.unit

HISTORIES = [
    (Utterance("agent", "Hello!"), Utterance("listener", f"I planted {n} trees today."))
    for n in ("two", "six", "ten")
]
REPLIES = {
    "warm-policy": [f"How lovely, trees {n}!" for n in range(3)],
    "cold-policy": [f"I see, trees {n}." for n in range(3)],
    "odd-policy": [f"Purple, trees {n}." for n in range(3)],
}
REQUESTS = requests_of(3)


def ask(
    answer: Callable[[dict[str, Any]], Reply],
    file: Path,
    *,
    replies: dict[str, list[str]] = REPLIES,
    seed: int = 0,
    concurrency: int = 3,
    waits: list[float] | None = None,
) -> tuple[Judged, FakeJudge]:
    with serving(answer) as server:
        settings = Judge(url=server.url, model="fake", api_key_env="GELI_TEST_KEY")
        with Client(settings, sleep=(waits if waits is not None else []).append) as client:
            made = judge(
                client, HISTORIES, replies, seed=seed, file=file, concurrency=concurrency
            )
    return made, server


def fair(body: dict[str, Any]) -> str:
    return verdict(body, lambda _, reply: "lovely" in reply)


def test_a_fair_judge_gives_the_same_marks_in_both_orders(tmp_path: Path) -> None:
    made, server = ask(fair, tmp_path / "j.jsonl")
    assert len(server.bodies) == REQUESTS == 48
    for question in QUESTIONS:
        marks = made.marks[question.metric]
        liked, other = (0.0, 1.0) if question.negated else (1.0, 0.0)
        assert marks["warm-policy"] == [liked] * 3
        assert marks["cold-policy"] == marks["odd-policy"] == [other] * 3
    for agreement in made.agreement:
        assert (agreement.pairs, agreement.same, agreement.kappa) == (9, 1.0, 1.0)
        assert (agreement.unreadable, agreement.asked) == (0, 6)


def test_a_judge_that_likes_the_first_place_shows_as_disagreement(tmp_path: Path) -> None:
    """Of three replies the first is last the other way round; only the middle one agrees."""
    made, _ = ask(lambda b: verdict(b, lambda letter, _: letter == "A"), tmp_path / "j.jsonl")
    for agreement in made.agreement:
        assert agreement.same == pytest.approx(1 / 3)
        assert agreement.kappa < 0
        assert (agreement.yes_first, agreement.yes_last) == (1, 0)
    marks = made.marks["connection"]
    for history in range(3):
        # One half to the two that were first once, nothing to the one in the middle.
        assert sorted(marks[name][history] for name in REPLIES) == [0, 0.5, 0.5]


def test_no_policy_is_named_and_places_are_shuffled(tmp_path: Path) -> None:
    _, server = ask(fair, tmp_path / "j.jsonl", concurrency=1)
    sent = json.dumps(server.bodies)
    assert "policy" not in sent
    first = [shown(body)["A"].split()[0] for body in server.bodies]
    assert set(first) == {"How", "I", "Purple,"}
    orders = [list(shown(body).values()) for body in server.bodies]
    assert all(a == b[::-1] for a, b in zip(orders[::2], orders[1::2], strict=True))
    assert {body["model"] for body in server.bodies} == {"fake"}


def test_the_order_depends_on_the_seed_and_on_nothing_else(tmp_path: Path) -> None:
    def orders(name: str, seed: int, replies: dict[str, list[str]] = REPLIES) -> list[list[str]]:
        _, server = ask(fair, tmp_path / name, seed=seed, replies=replies, concurrency=1)
        return [list(shown(body).values()) for body in server.bodies]

    turned = dict(reversed(REPLIES.items()))
    assert orders("a", 1) == orders("b", 1) == orders("c", 1, turned) != orders("d", 2)


def test_only_the_end_of_a_history_is_sent(tmp_path: Path) -> None:
    long = [(*(Utterance("listener", f"secret {i}") for i in range(30)), HISTORIES[0][1])]
    with serving(fair) as server, Client(Judge(url=server.url)) as client:
        judge(client, long, {k: v[:1] for k, v in REPLIES.items()}, seed=0, file=tmp_path / "j")
    text = server.bodies[0]["messages"][1]["content"]
    assert "secret 29" in text and "secret 20" not in text and "trees today" in text


def test_a_malformed_answer_gets_one_more_try(tmp_path: Path) -> None:
    def first_wrong(body: dict[str, Any]) -> str:
        return fair(body) if len(body["messages"]) > 2 else "I think A is rather nice"

    made, server = ask(first_wrong, tmp_path / "j.jsonl")
    assert len(server.bodies) == 2 * REQUESTS
    assert made.marks["connection"]["warm-policy"] == [1.0] * 3
    assert all(a.unreadable == 0 for a in made.agreement)


def test_what_cannot_be_read_is_counted_and_gives_no_mark(tmp_path: Path) -> None:
    def never_about_six(body: dict[str, Any]) -> str:
        return "yes" if "six" in body["messages"][1]["content"] else fair(body)

    made, server = ask(never_about_six, tmp_path / "j.jsonl")
    assert len(server.bodies) == REQUESTS + 16
    for metric in METRICS:
        found = made.marks[metric]["warm-policy"]
        assert math.isnan(found[1]) and not math.isnan(found[0] + found[2])
    assert {(a.unreadable, a.asked, a.pairs) for a in made.agreement} == {(2, 6, 6)}


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    answered = 0

    def dies(body: dict[str, Any]) -> Reply:
        nonlocal answered
        answered += 1
        return fair(body) if answered <= 20 else (400, {})

    with pytest.raises(EngineError):
        ask(dies, file, concurrency=1)
    with file.open("a") as handle:
        handle.write('{"digest": "cut in the mid')
    assert len(file.read_text().splitlines()) == 21
    made, server = ask(fair, file)
    assert len(server.bodies) == REQUESTS - 20
    again, silent = ask(lambda _: (500, {}), file)
    assert silent.bodies == [] and again == made
    assert made.marks["reuse"]["warm-policy"] == [1.0] * 3


def test_the_file_of_answers_holds_no_text_and_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GELI_TEST_KEY", "sk-very-secret")
    _, server = ask(fair, tmp_path / "j.jsonl")
    kept = (tmp_path / "j.jsonl").read_text()
    assert "trees" not in kept and "lovely" not in kept and "secret" not in kept
    assert {h["Authorization"] for h in server.headers} == {"Bearer sk-very-secret"}
    assert "secret" not in json.dumps(server.bodies)


def test_without_a_key_no_header_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GELI_TEST_KEY", raising=False)
    _, server = ask(fair, tmp_path / "j.jsonl")
    assert not any("Authorization" in h for h in server.headers)


def test_another_model_or_reply_is_asked_anew(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    ask(fair, file)
    changed = {**REPLIES, "odd-policy": ["Green.", *REPLIES["odd-policy"][1:]]}
    _, server = ask(fair, file, replies=changed)
    assert len(server.bodies) == 16  # one history of three


def test_a_busy_server_is_waited_for(tmp_path: Path) -> None:
    seen = 0

    def busy(body: dict[str, Any]) -> Reply:
        nonlocal seen
        seen += 1
        return {1: (429, {"retry-after": "7"}), 2: (503, {})}.get(seen, fair(body))

    waits: list[float] = []
    made, server = ask(busy, tmp_path / "j.jsonl", concurrency=1, waits=waits)
    assert waits == [7.0, 2.0]
    assert len(server.bodies) == REQUESTS + 2
    assert made.marks["connection"]["warm-policy"] == [1.0] * 3


@pytest.mark.parametrize(
    ("status", "tries", "line"),
    [
        (429, TRIES, "HTTP 429, 5 times"),
        (500, TRIES, "HTTP 500, 5 times"),
        (401, 1, "HTTP 401 — the key in $GELI_TEST_KEY is refused"),
        (404, 1, "judge.model (fake) must be one it serves"),
        (400, 1, "HTTP 400"),
    ],
)
def test_a_server_that_refuses_is_one_line(
    status: int, tries: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GELI_TEST_KEY", "sk-very-secret")
    bodies: list[Any] = []

    def refuse(body: dict[str, Any]) -> Reply:
        bodies.append(body)
        return status, {}

    with pytest.raises(EngineError) as caught:
        ask(refuse, tmp_path / "j.jsonl", concurrency=1)
    assert line in str(caught.value) and "\n" not in str(caught.value)
    # The server quotes the request in its error; neither that nor the key comes through.
    assert "trees" not in str(caught.value) and "secret" not in str(caught.value)
    assert len(bodies) == tries


def test_a_missing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GELI_TEST_KEY", raising=False)
    with pytest.raises(EngineError, match=r"put a key into \$GELI_TEST_KEY"):
        ask(lambda _: (401, {}), tmp_path / "j.jsonl")


def test_a_server_that_is_down_is_one_line() -> None:
    with serving(fair) as server:
        url = server.url
    waits: list[float] = []
    address = url.replace("//", "//me:hidden@")
    with Client(Judge(url=address), sleep=waits.append) as client:
        with pytest.raises(EngineError) as caught:
            client.ask([{"role": "user", "content": "hello"}])
    assert f"the judge {url}: no connection, 5 times" in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert waits == [1, 2, 4, 8]


def test_something_else_that_answers_is_one_line(tmp_path: Path) -> None:
    with serving(lambda _: (201, {})) as server, Client(Judge(url=server.url)) as client:
        with pytest.raises(EngineError, match="HTTP 201"):
            client.ask([{"role": "user", "content": "hello"}])


@pytest.mark.parametrize("url", [None, "127.0.0.1:8000/v1", "ftp://x/v1", "http://[::1/v1"])
def test_a_url_that_is_none_is_refused(url: str | None) -> None:
    with pytest.raises(DataError, match="judge"):
        Client(Judge(url=url))


def test_which_server_is_on_this_machine() -> None:
    for url, local in (("http://127.0.0.1:8000/v1", True), ("https://api.example.org/v1", False)):
        with Client(Judge(url=url)) as client:
            assert client.local is local


@pytest.mark.parametrize("names", [[], ["only"], [f"p{i}" for i in range(27)]])
def test_the_judge_compares_two_policies_or_more(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 to 26"):
        ask(fair, tmp_path / "j.jsonl", replies={name: ["a", "b", "c"] for name in names})


@pytest.mark.parametrize(
    "text",
    [
        '{"A": "yes", "B": "no"}',
        '{"a": "Yes.", "b": false}',
        '```json\n{"A": true, "B": "no"}\n```',
        '<think>Hm, A is {"A": "no"}.</think>\n{"A": "yes", "B": "no"}',
        "A: yes\nB: no",
        "**A**: Yes\n\n**B**: No.",
    ],
)
def test_answers_that_can_be_read(text: str) -> None:
    assert parse(text, "AB") == {"A": True, "B": False}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "[]",
        "5",
        '{"A": "yes"}',
        '{"A": "yes", "B": "no", "C": "no"}',
        '{"A": "yes", "A": "no", "B": "no"}',
        '{"A": "yes", "B": "maybe"}',
        '{"A": "yes", "B": null}',
        '{"A": "yes", "B": ["no"]}',
        '{"A": "yes", "B": "no"} because B is dull',
        "A: yes\nB: no\nB: yes",
        "A: yes",
        "A and B: yes",
        "[" * 100_000,
    ],
)
def test_answers_that_cannot_be_read(text: str) -> None:
    assert parse(text, "AB") is None
