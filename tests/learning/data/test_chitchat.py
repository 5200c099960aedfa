from typing import Any

import pytest

from learning.data.chitchat import read

pytestmark = pytest.mark.unit


def chat(texts: list[str], rating: int | None = 8, other: int = 3, names: str = "ab") -> Any:
    messages = [
        [{"text": text, "sender": names[i % len(names)], "timestamp": "t"}]
        for i, text in enumerate(texts)
    ]
    out: dict[str, Any] = {"messages": messages, "start": "t"}
    if rating is not None:
        out["ratings"] = {"witty": other, "interesting": other, "upbeat": rating}
    return out


EIGHT = [f"number {i}" for i in range(8)]


def test_ratings_come_to_0_to_100_and_every_turn_is_scored() -> None:
    data = read({"x": chat(EIGHT, 10), "y": chat(EIGHT, 1)})
    assert [d.rating for d in data.dialogues] == [100.0, 0.0]
    assert data.scale == (1.0, 10.0)
    assert len(data.dialogues[0].scored) == 8
    assert [t.speaker for t in data.dialogues[0].turns[:2]] == ["agent", "listener"]
    assert data.dialogues[0].people == ("a", "b")


def test_consecutive_messages_of_one_sender_are_one_turn() -> None:
    made = chat([*EIGHT, "hello", "again"], names="ababababaa")
    turns = read({"x": made}).dialogues[0].turns
    assert turns[-1].text == "hello again"
    assert len(turns) == 9


def test_the_label_is_the_sentiment_of_the_answer() -> None:
    made = chat([*EIGHT[:6], "so", "that is wonderful, I love it", "hm", "terrible, I hate this"])
    turns = read({"x": made}).dialogues[0].turns
    assert [t.li for t in turns[6:]] == [1, 0, 0, None]


def test_what_is_left_out_is_counted_by_reason() -> None:
    chats = {
        "unrated": chat(EIGHT, None),
        "alone": chat(EIGHT, names="a"),
        "short": chat(EIGHT[:5]),
        "untouched": chat(EIGHT, 5, 5),
        "silent": chat([" "] * 8),
        "good": chat(EIGHT),
    }
    data = read(chats)
    assert [d.id for d in data.dialogues] == ["good"]
    assert data.dropped == {
        "not rated": 1,
        "nobody answered": 1,
        "fewer than 8 turns": 1,
        "rating untouched (5/5/5)": 1,
        "without any text": 1,
    }
    everything = read(chats, everything=True)
    assert len(everything.dialogues) == 4
    assert everything.dropped == {"not rated": 1, "without any text": 1}
