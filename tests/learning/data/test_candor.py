"""CANDOR folders to dialogues: who listens, which seconds make a label, what is refused and why."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from learning.data import candor, candor_synthetic
from learning.dialogue import Dialogue, summarise, with_sentiment
from learning.errors import DataError

pytestmark = pytest.mark.unit

ANN, BEN = "ann", "ben"
HAPPY = "prob_face_happiness"
TURNS = [
    ("ann", 0.0, 3.0, "Hello there."),
    ("ben", 4.0, 6.0, "Hi, how are you?"),
    ("ann", 7.0, 9.0, "Fine."),
]


def table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def make(
    folder: Path,
    *,
    turns: Iterable[tuple[Any, ...]] = TURNS,
    ann: Sequence[Any] | None = None,
    ben: Sequence[Any] | None = None,
    ratings: dict[str, Any] | None = None,
    transcript: str = "backbiter",
) -> Path:
    """One conversation by hand; `ann` and `ben` are P(happy) of the seconds 0, 1, 2, …"""
    folder.mkdir(parents=True)
    speakers = [{"user_id": ANN, "channel": "L"}, {"user_id": BEN, "channel": "R"}]
    (folder / "metadata.json").write_text(json.dumps({"speakers": speakers}), encoding="utf-8")
    given = {ANN: 7, BEN: 4} if ratings is None else ratings
    table(folder / "survey.csv", ("user_id", "overall_affect"), given.items())
    if ann is not None or ben is not None:
        rows = [
            (who, f"0 days 00:00:{second:02}", p)
            for who, seconds in ((ANN, ann or ()), (BEN, ben or ()))
            for second, p in enumerate(seconds)
        ]
        table(folder / "audio_video_features.csv", ("user_id", "timedelta", HAPPY), rows)
    columns = ("speaker", "start", "stop", "utterance")
    table(folder / "transcription" / f"transcript_{transcript}.csv", columns, turns)
    return folder


def only(directory: Path, listener: str, **settings: Any) -> Dialogue:
    dialogues = candor.load(directory, **settings).dialogues
    return next(d for d in dialogues if d.id.endswith(f"#{listener}"))


def labels(directory: Path, listener: str = BEN, **settings: Any) -> list[int | None]:
    dialogue = only(directory, listener, **settings)
    return [dialogue.turns[i].li for i in dialogue.scored]


# --- what a conversation becomes


def test_each_participant_rates_the_other_one(tmp_path: Path) -> None:
    make(tmp_path / "c1")
    ann, ben = candor.load(tmp_path).dialogues
    assert (ann.id, ben.id) == ("c1#ann", "c1#ben")
    assert (ann.people, ben.people) == ((BEN, ANN), (ANN, BEN))
    assert (ann.rating, ben.rating) == (70.0, 40.0)
    assert [t.speaker for t in ben.turns] == ["agent", "listener", "agent"]
    assert [t.speaker for t in ann.turns] == ["listener", "agent", "listener"]
    assert (ann.scored, ben.scored) == ((1,), (0, 2))
    assert [t.text for t in ann.turns] == [t.text for t in ben.turns] == [t[3] for t in TURNS]


def test_turns_are_sorted_stripped_and_never_empty(tmp_path: Path) -> None:
    said = [("ben", 5, 6, " b\n"), ("ann", 1, 2, "  "), ("ann", 3, 4, "\ta, quoted")]
    make(tmp_path / "c1", turns=said)
    assert [t.text for t in only(tmp_path, BEN).turns] == ["a, quoted", "b"]


def test_a_rating_can_be_on_another_scale(tmp_path: Path) -> None:
    make(tmp_path / "c1", ratings={ANN: 1, BEN: 7})
    data = candor.load(tmp_path, scale=(1.0, 9.0))
    assert [d.rating for d in data.dialogues] == [0.0, 75.0]
    assert data.scale == (1.0, 9.0)


@pytest.mark.parametrize("ratings", [{ANN: 7, BEN: ""}, {ANN: 7}, {ANN: 7, BEN: " "}])
def test_who_did_not_answer_has_no_rating(tmp_path: Path, ratings: dict[str, Any]) -> None:
    make(tmp_path / "c1", ratings=ratings)
    assert [d.rating for d in candor.load(tmp_path).dialogues] == [70.0, None]


def test_without_survey_or_features_the_dialogues_stay_and_the_notes_say_so(tmp_path: Path) -> None:
    (make(tmp_path / "c1") / "survey.csv").unlink()
    make(tmp_path / "c2", ben=[0.9] * 20)
    data = candor.load(tmp_path)
    assert [d.rating for d in data.dialogues] == [None, None, 70.0, 40.0]
    assert [t.li for d in data.dialogues[:2] for t in d.turns] == [None] * 6
    assert "missing in 1 of 2 conversations: survey.csv" in data.notes
    assert "missing in 1 of 2 conversations: audio_video_features.csv" in data.notes
    assert (
        "missing in 1 of 2 conversations: audio_video_features.csv: rows of a participant"
        in data.notes
    )


def test_missing_optional_columns_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "c1")
    columns = ("speaker", "start", "stop", "utterance", "overlap", "backchannel")
    table(
        folder / "transcription" / "transcript_backbiter.csv",
        columns,
        [(*turn, "False", "") for turn in TURNS],
    )
    notes = "\n".join(candor.load(tmp_path).notes)
    assert "1 of 1 conversations: transcript_backbiter.csv: n_words" in notes
    assert "1 of 1 conversations: transcript_backbiter.csv: backchannel_count" in notes
    assert "transcript_backbiter.csv: overlap" not in notes
    assert "transcript_backbiter.csv: backchannel\n" not in notes + "\n"


def test_other_names_of_a_column_are_accepted(tmp_path: Path) -> None:
    folder = make(tmp_path / "c1", turns=[])
    path = folder / "transcription" / "transcript_backbiter.csv"
    table(path, ("text", "end_time", "start_time", "user_id"), [t[::-1] for t in TURNS])
    rows = [(BEN, second, 0.8) for second in range(20)]
    table(folder / "audio_video_features.csv", ("participant_id", "time", "prob_happy"), rows)
    assert [t.text for t in only(tmp_path, BEN).turns] == [t[3] for t in TURNS]
    assert labels(tmp_path) == [1, 1]


def test_folders_may_lie_one_level_deeper(tmp_path: Path) -> None:
    make(tmp_path / "no_media_2" / "b")
    make(tmp_path / "no_media_1" / "c")
    make(tmp_path / "a")
    (tmp_path / ".cache").mkdir()
    data = candor.load(tmp_path)
    assert [d.id for d in data.dialogues] == ["a#ann", "a#ben", "b#ann", "b#ben", "c#ann", "c#ben"]
    assert data.dropped == {}


# --- which seconds make a label


def test_the_label_is_the_mean_from_the_turns_start_to_the_listeners_next(tmp_path: Path) -> None:
    # Seconds 0 to 3 belong to the first turn; Ben speaks from 4 on; 7 to 18 belong to the last.
    face = [0.6, 0.6, 0.6, 0.3] + [1.0] * 3 + [0.2] * 12
    make(tmp_path / "c1", ben=face)
    assert labels(tmp_path) == [1, 0]
    assert labels(tmp_path, positive_threshold=0.53) == [0, 0]
    assert labels(tmp_path, positive_threshold=0.2) == [1, 1]


def test_only_the_listeners_face_counts(tmp_path: Path) -> None:
    make(tmp_path / "c1", ann=[0.9] * 20, ben=[0.1] * 20)
    assert labels(tmp_path, BEN) == [0, 0]
    assert labels(tmp_path, ANN) == [1]
    assert all(t.li is None for t in only(tmp_path, BEN).turns if t.speaker == "listener")


@pytest.mark.parametrize(("max_after_s", "expected"), [(0.0, 0), (1.0, 0), (3.0, 1), (10.0, 1)])
def test_the_face_counts_only_so_long_after_the_turn(
    tmp_path: Path, max_after_s: float, expected: int
) -> None:
    turns = [("ann", 0, 2, "a"), ("ben", 30, 31, "b")]
    make(tmp_path / "c1", turns=turns, ben=[0.1, 0.1] + [0.9] * 30)
    assert labels(tmp_path, max_after_s=max_after_s) == [expected]


@pytest.mark.parametrize(
    ("face", "expected"),
    [
        (["", "", "", ""], None),
        (["", "", "", 0.9], None),
        (["", "", 0.9, 0.9], 1),
        ([0.1, "", "", 0.1], 0),
        ([0.0, 0.0, 0.0, ""], 0),
    ],
)
def test_unseen_seconds_are_unknown_not_neutral(
    tmp_path: Path, face: list[Any], expected: int | None
) -> None:
    make(tmp_path / "c1", ben=face + [0.0] * 4)
    assert labels(tmp_path)[0] == expected


def test_a_second_without_a_row_shows_no_face(tmp_path: Path) -> None:
    folder = make(tmp_path / "c1")
    rows = [(BEN, "00:00:00", 0.9), (BEN, "00:00:20", 0.9)]
    table(folder / "audio_video_features.csv", ("user_id", "timedelta", HAPPY), rows)
    assert labels(tmp_path) == [None, None]


def test_seconds_after_the_recording_are_not_unseen_ones(tmp_path: Path) -> None:
    # The last turn is 7 to 9 and the recording ends at 10: three seconds, not twelve.
    make(tmp_path / "c1", ben=[0.0] * 7 + [0.9] * 3)
    assert labels(tmp_path) == [0, 1]


def test_a_turn_within_one_second_takes_that_second(tmp_path: Path) -> None:
    turns = [("ann", 2.2, 2.5, "a"), ("ben", 2.9, 4, "b")]
    make(tmp_path / "c1", turns=turns, ben=[0.0, 0.0, 0.9, 0.0, 0.0])
    assert labels(tmp_path) == [1]


def test_the_window_ends_where_the_listener_cuts_in(tmp_path: Path) -> None:
    turns = [("ann", 0, 8, "a"), ("ben", 2, 3, "b"), ("ann", 9, 10, "c")]
    make(tmp_path / "c1", turns=turns, ben=[0.9, 0.9] + [0.0] * 12)
    assert labels(tmp_path) == [1, 0]


def test_who_begins_together_is_not_yet_answering(tmp_path: Path) -> None:
    turns = [("ann", 0, 3, "a"), ("ben", 0, 1, "b"), ("ben", 4, 5, "c")]
    make(tmp_path / "c1", turns=turns, ben=[0.9] * 6)
    assert labels(tmp_path) == [1]


def test_an_emotions_name_counts_as_its_probability(tmp_path: Path) -> None:
    folder = make(tmp_path / "c1")
    shown = ["happy", "Happiness", "", "sad"] + ["neutral"] * 10
    table(
        folder / "audio_video_features.csv",
        ("user_id", "timedelta", "emotion"),
        [(BEN, second, name) for second, name in enumerate(shown)],
    )
    assert labels(tmp_path) == [1, 0]
    assert any("only an emotion's name" in note for note in candor.load(tmp_path).notes)


def test_features_without_a_face_leave_the_labels_unknown(tmp_path: Path) -> None:
    folder = make(tmp_path / "c1")
    rows = [(BEN, second, 0.1) for second in range(20)]
    table(folder / "audio_video_features.csv", ("user_id", "timedelta", "pitch"), rows)
    assert labels(tmp_path) == [None, None]
    assert any(f"face column ({HAPPY})" in note for note in candor.load(tmp_path).notes)


# --- what is refused


def replace_in(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def content(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


TRANSCRIPT = "transcription/transcript_backbiter.csv"
FEATURES = "audio_video_features.csv"
HEAD = b"speaker,start,stop,utterance\n"
BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (emptied, "metadata.json: not there"),
    (remove(TRANSCRIPT), "transcript_backbiter.csv: not there"),
    (remove("metadata.json"), "metadata.json: not there"),
    (content("metadata.json", b'{"speakers": ['), "metadata.json: not JSON"),
    (content("metadata.json", b"[" * 100_000), "metadata.json: not JSON"),
    (content("metadata.json", b"[]"), "metadata.json: no list of speakers with user_id"),
    (content("metadata.json", b'{"speakers": {}}'), "metadata.json: not exactly two speakers"),
    (
        content("metadata.json", b'{"speakers": [{"user_id": "ann"}]}'),
        "metadata.json: not exactly two speakers",
    ),
    (
        content("metadata.json", b'{"speakers": [{"user_id": "ann"}, {"user_id": "ann"}]}'),
        "metadata.json: not exactly two speakers",
    ),
    (
        replace_in("metadata.json", "ben", "eve"),
        "transcript_backbiter.csv: a speaker who is not in metadata.json (column speaker, line 3)",
    ),
    (
        replace_in(TRANSCRIPT, "utterance", "words"),
        "transcript_backbiter.csv: wrong header (no utterance)",
    ),
    (
        content(TRANSCRIPT, b"speaker,start,stop,utterance,start\nann,0,1,a,0\n"),
        "transcript_backbiter.csv: wrong header (start twice)",
    ),
    (content(TRANSCRIPT, b""), "transcript_backbiter.csv: empty"),
    (content(TRANSCRIPT, HEAD), "transcript_backbiter.csv: no utterance"),
    (content(TRANSCRIPT, HEAD + b"ann,0,1, \n"), "transcript_backbiter.csv: no utterance"),
    (
        content(TRANSCRIPT, HEAD + b"ann,0,1,a\n"),
        "transcript_backbiter.csv: only one of the two speaks",
    ),
    (content(TRANSCRIPT, HEAD + b"ann,0,1,\xff\n"), "transcript_backbiter.csv: not UTF-8 text"),
    (content(TRANSCRIPT, HEAD + b'ann,0,1,"a\n'), "transcript_backbiter.csv: not CSV (line 2)"),
    (
        content(TRANSCRIPT, HEAD + b"ann,0,1,a\nben,2"),
        "transcript_backbiter.csv: a row has too few or too many cells (line 3)",
    ),
    (
        content(TRANSCRIPT, HEAD + b"ann,0,1,a,b\n"),
        "transcript_backbiter.csv: a row has too few or too many cells (line 2)",
    ),
    (
        replace_in(TRANSCRIPT, "4.0", "soon"),
        "transcript_backbiter.csv: a value is not a number (column start, line 3)",
    ),
    (
        replace_in(TRANSCRIPT, "4.0", ""),
        "transcript_backbiter.csv: a value is not a number (column start, line 3)",
    ),
    (
        replace_in(TRANSCRIPT, "4.0", "nan"),
        "transcript_backbiter.csv: a value is not finite (column start, line 3)",
    ),
    (
        replace_in(TRANSCRIPT, "4.0", "-4.0"),
        "transcript_backbiter.csv: a time is below zero (column start, line 3)",
    ),
    (
        replace_in(TRANSCRIPT, "6.0", "3.9"),
        "transcript_backbiter.csv: a turn stops before it starts (column stop, line 3)",
    ),
    (
        replace_in("survey.csv", "overall_affect", "affect"),
        "survey.csv: wrong header (no overall_affect)",
    ),
    (
        replace_in("survey.csv", "ben,4", "ben,85"),
        "survey.csv: a rating outside 0 to 10 (column overall_affect, line 3)",
    ),
    (
        replace_in("survey.csv", "ben,4", "ben,-1"),
        "survey.csv: a rating outside 0 to 10 (column overall_affect, line 3)",
    ),
    (
        replace_in("survey.csv", "ben,4", "ben,good"),
        "survey.csv: a value is not a number (column overall_affect, line 3)",
    ),
    (
        replace_in("survey.csv", "ben,4", "ben,nan"),
        "survey.csv: a value is not finite (column overall_affect, line 3)",
    ),
    (
        replace_in("survey.csv", "ben,4", "ann,4"),
        "survey.csv: a participant answers twice (column user_id, line 3)",
    ),
    (
        replace_in(FEATURES, "00:00:02,0.5", "00:00:02,NaN"),
        f"audio_video_features.csv: a value is not finite (column {HAPPY}, line 4)",
    ),
    (
        replace_in(FEATURES, "00:00:02,0.5", "00:00:02,-inf"),
        f"audio_video_features.csv: a value is not finite (column {HAPPY}, line 4)",
    ),
    (
        replace_in(FEATURES, "00:00:02,0.5", "00:00:02,50"),
        f"audio_video_features.csv: a probability outside 0 to 1 (column {HAPPY}, line 4)",
    ),
    (
        replace_in(FEATURES, "0 days 00:00:02", "NaT"),
        "audio_video_features.csv: a value is not a number (column timedelta, line 4)",
    ),
    (
        replace_in(FEATURES, "timedelta", "when"),
        "audio_video_features.csv: wrong header (no timedelta)",
    ),
    (
        content(FEATURES, b"user_id,timedelta,emotion\nben,0,hungry\n"),
        "audio_video_features.csv: an emotion that is not known (column emotion, line 2)",
    ),
    (content(FEATURES, b'"user_id'), "audio_video_features.csv: not CSV"),
    (content(FEATURES, b"\x00"), "audio_video_features.csv: wrong header (no user_id, timedelta)"),
]


@pytest.mark.parametrize(("breaks", "reason"), BROKEN, ids=range(len(BROKEN)))
def test_a_malformed_conversation_is_named_and_the_others_are_read(
    tmp_path: Path, breaks: Callable[[Path], None], reason: str
) -> None:
    make(tmp_path / "a-good")
    breaks(make(tmp_path / "b-bad", ben=[0.5] * 20))
    make(tmp_path / "c-good")
    dialogues, malformed, notes = candor.read(tmp_path)
    assert malformed == [("b-bad", reason)]
    assert [d.id for d in dialogues] == ["a-good#ann", "a-good#ben", "c-good#ann", "c-good#ben"]
    assert f"skipped b-bad: {reason}" in notes
    assert candor.load(tmp_path).dropped == {reason.partition(" (")[0]: 1}


def test_reasons_are_counted_without_their_place(tmp_path: Path) -> None:
    make(tmp_path / "good")
    for name, line in (("b1", "00:00:02"), ("b2", "00:00:05")):
        folder = make(tmp_path / name, ben=[0.5] * 20)
        replace_in(FEATURES, f"{line},0.5", f"{line},nan")(folder)
    emptied(make(tmp_path / "b3"))
    assert candor.load(tmp_path).dropped == {
        "audio_video_features.csv: a value is not finite": 2,
        "metadata.json: not there": 1,
    }


def test_the_same_id_in_two_folders_is_read_once(tmp_path: Path) -> None:
    make(tmp_path / "part_1" / "c1")
    make(tmp_path / "part_2" / "c1")
    dialogues, malformed, _ = candor.read(tmp_path)
    assert len(dialogues) == 2
    assert malformed == [("c1", "the same conversation is in two folders")]


def test_many_malformed_ones_are_counted_not_all_named_in_the_notes(tmp_path: Path) -> None:
    make(tmp_path / "z")
    for i in range(candor.LISTED + 3):
        remove("metadata.json")(make(tmp_path / f"b{i:02}"))
    _, malformed, notes = candor.read(tmp_path)
    assert len(malformed) == candor.LISTED + 3
    assert "skipped 3 more" in notes


def test_a_directory_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory — give the folder"):
        candor.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no conversation — it needs one folder"):
        candor.load(tmp_path)
    folder = make(tmp_path / "c1")
    with pytest.raises(DataError, match="is one conversation — give the folder above"):
        candor.load(folder)
    with pytest.raises(DataError) as error:
        candor.load(tmp_path, "cliffhanger")
    assert "none of 1 conversations can be read" in str(error.value)
    assert "transcript_cliffhanger.csv: not there (1)" in str(error.value)
    assert "\n" not in str(error.value)


# --- the generator


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("candor") / "corpus"
    candor_synthetic.write(directory, conversations=20, seed=5)
    return directory


@pytest.mark.parametrize("transcript", ["backbiter", "cliffhanger", "audiophile"])
def test_generated_conversations_are_read_whole(corpus: Path, transcript: Any) -> None:
    data = candor.load(corpus, transcript)
    assert len(data.dialogues) == 40
    assert data.dropped == {}
    assert not [note for note in data.notes if "missing" in note]
    assert data.dialogues == tuple(sorted(data.dialogues, key=lambda d: d.id))
    summary = summarise(data)
    assert 30 <= summary.rated <= 40
    assert 0.8 < summary.labelled_turns / summary.scored_turns <= 1.0
    assert 0.1 < summary.positive_turns / summary.labelled_turns < 0.7


def test_the_transcripts_cut_the_same_talk_differently(corpus: Path) -> None:
    def lengths(transcript: Any) -> list[int]:
        return [len(d.turns) for d in candor.load(corpus, transcript).dialogues]

    backbiter, cliffhanger, audiophile = map(lengths, ("backbiter", "cliffhanger", "audiophile"))
    assert set(backbiter) == {40}
    assert sum(backbiter) < sum(cliffhanger) < sum(audiophile)


def test_one_seed_one_corpus(corpus: Path, tmp_path: Path) -> None:
    candor_synthetic.write(tmp_path / "again", conversations=20, seed=5)
    candor_synthetic.write(tmp_path / "other", conversations=20, seed=6)
    files = sorted(p.relative_to(corpus) for p in corpus.rglob("*") if p.is_file())
    assert len(files) == 20 * 6
    assert all((corpus / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    digests = [candor.load(d).digest for d in (corpus, tmp_path / "again", tmp_path / "other")]
    assert digests[0] == digests[1] != digests[2]


def test_generated_faces_follow_what_was_said(corpus: Path) -> None:
    dialogues = with_sentiment(candor.load(corpus).dialogues)
    turns = [d.turns[i] for d in dialogues for i in d.scored]

    def share(seen: list[int | None]) -> float:
        known = [li for li in seen if li is not None]
        return sum(known) / len(known)

    pleasant = share([t.li for t in turns if t.sentiment is not None and t.sentiment > 0.5])
    unpleasant = share([t.li for t in turns if t.sentiment is not None and t.sentiment < -0.5])
    assert pleasant > unpleasant + 0.2


def test_the_generator_does_not_mix_into_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(DataError, match="not empty"):
        candor_synthetic.write(tmp_path, conversations=1, seed=0)
    with pytest.raises(DataError, match="at least 2"):
        candor_synthetic.write(tmp_path / "new", conversations=1, seed=0, turns=1)
