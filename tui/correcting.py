"""The corrections that a list and a single session offer alike: ask, change, say what changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent import corrections, retention
from agent.corrections import Change
from agent.store import Store
from tui.app import Review
from tui.ask import AskText, Confirm
from tui.words import counted

Done = Callable[[], object]


def rate(app: Review, ids: Sequence[str], now: float | None, done: Done) -> None:
    """Ask for the overall affect."""

    def answered(text: str | None) -> None:
        if text is not None:
            _change(app, ids, lambda s, i: corrections.rate(s, i, float(text), app.by), done)

    app.push_screen(
        AskText(
            f"Overall affect of {_named(ids)}, 0 very negative to 100 very positive",
            "" if now is None else f"{now:g}",
            "The old value and where it came from are kept.",
            _wrong_rating,
        ),
        answered,
    )


def exclude(app: Review, ids: Sequence[str], excluded: bool, done: Done) -> None:
    """Exclude with a reason; when `excluded` is what they are already, include again."""
    if excluded:
        _change(app, ids, lambda s, i: corrections.include(s, i, app.by), done)
        return

    def answered(text: str | None) -> None:
        if text is not None:
            _change(app, ids, lambda s, i: corrections.exclude(s, i, text, app.by), done)

    app.push_screen(
        AskText(
            f"Keep {_named(ids)} out of learning: why?",
            hint="For whoever reads it later, e.g. a test call, two people in the picture.",
            check=lambda text: None if text.strip() else "An exclusion needs a reason.",
        ),
        answered,
    )


def note(app: Review, session_id: str, now: str | None, done: Done) -> None:
    """Ask for the note."""

    def answered(text: str | None) -> None:
        if text is not None:
            _change(app, [session_id], lambda s, i: corrections.note(s, i, text, app.by), done)

    app.push_screen(
        AskText("Note; an empty one removes it", (now or "").replace("\n", " ")), answered
    )


def tag(app: Review, ids: Sequence[str], now: Sequence[str], done: Done) -> None:
    """Ask for tags: those of one session as they shall be, or ones to add to many."""
    one = len(ids) == 1

    def answered(text: str | None) -> None:
        if text is None:
            return
        new = [part.strip() for part in text.split(",") if part.strip()]
        gone = [old for old in now if old not in new] if one else []
        _change(app, ids, lambda s, i: corrections.tag(s, i, app.by, new, gone), done)

    question = "Tags, with commas between them" if one else f"Tags to add to {_named(ids)}"
    app.push_screen(AskText(question, ", ".join(now) if one else ""), answered)


def undo(app: Review, session_id: str, done: Done) -> None:
    """Take the newest change of a session back."""

    def work() -> Change | None:
        last = corrections.last(app.store, session_id)
        return None if last is None else corrections.undo(app.store, last.id, app.by)

    def told(change: Change | None) -> None:
        if change is None:
            app.notify("nothing was changed in this session that could be undone")
        else:
            app.notify(f"undone: {change}", markup=False)
            done()

    app.attempt(work, told)


def delete(
    app: Review,
    ids: Sequence[str],
    done: Done,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> None:
    """Ask, then delete for good, and say what had learned from them.

    `progress` is called from a thread with how many are done, of how many.
    """

    def answered(yes: bool | None) -> None:
        if not yes:
            return
        n = len(ids)
        app.notify(f"deleting {counted(n, 'session')} …")

        def told(removed: retention.Removed) -> None:
            lines = [f"{counted(len(removed.ids), 'session')} deleted"]
            if removed.trained:
                lines.append(f"learned from: {', '.join(removed.trained)} — retrain by a round")
            if removed.left_over:
                lines.append(f"not gone from the file yet: {removed.left_over}")
            lines += [f"{i}: not marked: {why}" for i, why in removed.unmarked.items()]
            kind = "warning" if removed.left_over or removed.unmarked else "information"
            app.notify("\n".join(lines), severity=kind, timeout=12, markup=False)  # type: ignore[arg-type]
            done()

        app.attempt(lambda: retention.remove(app.store, ids, progress), told)

    app.push_screen(
        Confirm(
            f"Delete {_named(ids)} for good?",
            [
                "Words, labels, ratings, notes and changes are overwritten in the database file.",
                "This cannot be undone. What was trained on it is marked, and named afterwards.",
            ],
            danger=True,
        ),
        answered,
    )


def _change(
    app: Review,
    ids: Sequence[str],
    function: Callable[[Store, str], Change | None],
    done: Done,
) -> None:
    def told(made: list[Change | None]) -> None:
        changed = [change for change in made if change is not None]
        if not changed:
            app.notify("it is so already")
        elif len(changed) == 1:
            app.notify(f"{changed[0]} (u undoes it)", markup=False)
        else:
            app.notify(f"{changed[0].what} of {len(changed)} sessions (u undoes one)")
        done()

    app.attempt(lambda: [function(app.store, session_id) for session_id in ids], told)


def _named(ids: Sequence[Any]) -> str:
    return str(ids[0]) if len(ids) == 1 else counted(len(ids), "session")


def _wrong_rating(text: str) -> str | None:
    try:
        value = float(text)
    except ValueError:
        return "A number from 0 to 100."
    return None if 0 <= value <= 100 else "Overall affect is 0 to 100."
