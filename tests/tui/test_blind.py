"""Tab 4: two replies to one history without knowing whose, eight questions, agreement, the end of
being blind."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Static

from learning.compare import sheet
from learning.compare.questions import QUESTIONS
from learning.dialogue import Utterance
from tests.tui.learned import asked, notices, press, until
from tests.tui.screens import SIZES, driven, review, shown
from tui import rating_sheet
from tui.agreement import AgreementScreen
from tui.app import Review
from tui.blind import Blind
from tui.rating import Rating
from tui.rating_results import agreement

pytestmark = pytest.mark.unit

REPLIES = {"warm-policy": ["Lovely one!", "Lovely two!"], "cold-policy": ["No one.", "No two."]}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sheet of two histories in the data directory."""
    monkeypatch.setenv("GELI_DATA", str(tmp_path))
    folder = tmp_path / "sheets" / "20261123T100000"
    histories = [(Utterance("listener", f"My day was fine, part {n}."),) for n in "ab"]
    sheet.write(
        folder, histories, ["a", "b"], REPLIES, seed=0,
        scores={name: [60.0, 50.0] for name in REPLIES}, about={"source": "made"},
    )  # fmt: skip
    return folder


async def opened(pilot: object, app: Review) -> Rating:
    await press(pilot, "4", "enter")  # type: ignore[arg-type]
    assert isinstance(app.screen, Rating)
    return app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_without_a_sheet_it_says_how_to_come_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setenv("GELI_DATA", str(tmp_path))
    app = review(tmp_path, [])
    async with driven(app, size) as pilot:
        await press(pilot, "4")
        text = shown(app)
        assert "No sheet to rate yet." in text and "rater ada" in text
        for key in ("⏎ Rate", "n New sheet", "o Open a folder", "r Agreement", "i Who rates"):
            assert key in text, key
        await press(pilot, "n", "enter", "r")
        assert isinstance(app.screen, Blind)
        assert any("base is the only policy" in said for said in notices(app))


@pytest.mark.parametrize("size", SIZES)
async def test_nobody_sees_who_wrote_what_and_every_answer_is_kept(
    made: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    app = review(tmp_path, [])
    async with driven(app, size) as pilot:
        tab = await opened(pilot, app)
        text = shown(app)
        assert "Lovely" in text and "No " in text and "My day was fine" in text
        assert "warm" not in text and "cold" not in text
        for question in QUESTIONS:
            assert question.column.replace("_", " ") in text
        await press(pilot, "a", "b", "equals_sign", "minus", "0", "a", "A", "backspace")
        said = {column: [] for column in (q.column for q in QUESTIONS)}  # type: ignore[var-annotated]
        first = tab.sheet.histories[0].items
        for item in first:
            for column in said:
                said[column].append(tab.answers.said.get((item, column)))
        columns = list(said)
        assert said[columns[0]] == [True, False]
        assert said[columns[1]] == [False, True]
        assert said[columns[2]] == [True, True] and said[columns[3]] == [False, False]
        assert said[columns[4]] == [None, None] and said[columns[5]] == [True, False]
        assert said[columns[6]] == [None, None]
    again = review(tmp_path, [])
    async with driven(again, size) as pilot:
        tab = await opened(pilot, again)
        assert tab.at == 6 and sum(tab.answers.answered) == 5
        assert "5 of 16 answers" in shown(again) and "rater ada" in shown(again)
    file = made / "answers" / "ada.csv"
    read = sheet.read([file], sheet.read_key(made / "key.json"))
    assert read.raters == 1 and read.groups  # what `geli learn compare --sheet-in` reads


async def test_two_raters_agree_or_not_and_then_one_looks(made: Path, tmp_path: Path) -> None:
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        tab = await opened(pilot, app)
        for _ in range(tab.sheet.whole):
            await press(pilot, "a")
        assert isinstance(app.screen, AgreementScreen)
        assert any("every question is answered" in said for said in notices(app))
        await press(pilot, "escape", "escape")
        assert isinstance(app.screen, Blind)
        await press(pilot, "i")
        await press(pilot, *["backspace"] * 3, "b", "o", "enter")
        assert "rater bo" in shown(app)
        tab = await opened(pilot, app)
        assert not any(tab.answers.answered)
        for key in "ab" * (tab.sheet.whole // 2):
            await press(pilot, key)
        await until(pilot, lambda: "2 raters" in shown(app))
        text = shown(app)
        assert "warm-policy" not in text
        await press(pilot, "u")
        assert "blind" in asked(app)
        await press(pilot, "y")
        await until(pilot, lambda: "warm-policy" in asked(app))
        await press(pilot, "escape", "escape")
        tab = await opened(pilot, app)
        assert "! not blind any more" in str(tab.query_one("#status", Static).render())


def test_alpha_is_krippendorffs(made: Path) -> None:
    one = rating_sheet.read(made)
    cells = [cell for h in range(2) for cell in one.cells(h, 0)]
    first = dict(zip(cells, (True, False, True, False), strict=True))
    second = dict(zip(cells, (True, False, True, True), strict=True))
    same = {found.column: found for found in agreement(one, [first, first])}
    assert same[QUESTIONS[0].column].alpha == pytest.approx(1.0)
    # 8 values, 5 yes and 3 no; one of four pairs differs: 1 - (8 - 1) * 2 / (2 * 5 * 3)
    mixed = {found.column: found for found in agreement(one, [first, second])}
    assert mixed[QUESTIONS[0].column].alpha == pytest.approx(1 - 7 * 2 / 30)


async def test_a_damaged_sheet_and_damaged_answers_are_one_line(made: Path, tmp_path: Path) -> None:
    (made / "answers").mkdir()
    (made / "answers" / "bo.csv").write_text("nonsense\n")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await press(pilot, "4")
        assert "! bo:" in shown(app) and "ada 0 of 16" in shown(app)
        (made / "sheet.csv").write_text("nonsense\n")
        await press(pilot, "1", "4")
        assert "!" in shown(app) and "sheet.csv" in "".join(shown(app).split())
        await press(pilot, "enter")
        assert isinstance(app.screen, Blind)


def test_a_raters_name_names_a_file() -> None:
    assert rating_sheet.wrong_rater("ada-1") is None
    assert rating_sheet.wrong_rater("../ada") and rating_sheet.wrong_rater("")
    assert rating_sheet.safe_rater("Ada Lovelace / x") == "Ada-Lovelace-x"
