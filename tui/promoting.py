"""Who speaks: promote, roll back, name a candidate. Each asks first and names what will change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.policies import State
from learning.registry import BASE, Manifest
from tui.app import Review
from tui.ask import Confirm
from tui.words import counted

Done = Callable[[], object]
NEXT_CALL = "from the next call on; calls that go on now keep the policy they began with"


def promote(app: Review, entry: Manifest | None, done: Done) -> None:
    """Ask, then let a policy speak from the next call on; None: the base.

    Where gates failed, a second window asks whether to take it all the same.
    """

    def ask(state: State) -> None:
        name = BASE if entry is None else entry.id
        if state.promoted == (entry.id if entry else None):
            app.notify(f"{name} speaks already", markup=False)
            return
        lines = [
            f"speaks now    {state.promoted or BASE}",
            f"will speak    {name}",
            NEXT_CALL,
            *_standing(app, entry),
        ]
        if entry is not None and state.candidate == entry.id:
            lines.append("It is then no longer the candidate.")
        _asked(app, f"Let {name} speak?", lines, entry, lambda force: change(name, force))

    def change(name: str, force: bool) -> None:
        app.attempt(lambda: app.registry.promote(name, app.by, force), told)

    def told(state: State) -> None:
        before = state.history[-1].previous or BASE
        app.notify(
            f"the next call speaks with {state.promoted or BASE} (before: {before}); "
            "b in tab 2 goes back",
            markup=False,
        )
        done()

    app.attempt(lambda: app.registry.state, ask)


def roll_back(app: Review, done: Done) -> None:
    """Ask, then put the policy back that spoke before."""

    def ask(found: tuple[str | None, str | None]) -> None:
        now, before = (one or BASE for one in found)
        app.push_screen(
            Confirm(
                f"Go back to {before}?",
                [
                    f"speaks now    {now}",
                    f"will speak    {before}",
                    NEXT_CALL,
                ],
            ),
            answered,
        )

    def answered(yes: bool | None) -> None:
        if yes:
            app.attempt(lambda: app.registry.rollback(app.by), told)

    def told(state: State) -> None:
        before = state.history[-1].previous or BASE
        app.notify(
            f"the next call speaks with {state.promoted or BASE} again (before: {before})",
            markup=False,
        )
        done()

    app.attempt(lambda: (app.registry.state.promoted, app.registry.previous), ask)


def candidate(app: Review, entry: Manifest, done: Done) -> None:
    """Ask, then name the candidate, or where it is that already, take that away."""
    share = app.config.rollout.candidate_share

    def ask(state: State) -> None:
        if state.candidate == entry.id:
            app.push_screen(
                Confirm(
                    f"{entry.id} shall no longer be the candidate?",
                    [f"The share of the calls that it has now ({share:.0%}) goes to "
                     f"{state.promoted or BASE}."],
                ),
                lambda yes: change(None, False) if yes else None,
            )  # fmt: skip
            return
        lines = [
            f"candidate now    {state.candidate or 'none'}",
            f"candidate then   {entry.id}",
            f"It holds {share:.0%} of the new calls (rollout.candidate_share); the others stay "
            f"with {state.promoted or BASE}.",
            *_standing(app, entry),
        ]
        question = f"Make {entry.id} the candidate?"
        _asked(app, question, lines, entry, lambda force: change(entry.id, force))

    def change(entry_id: str | None, force: bool) -> None:
        app.attempt(lambda: app.registry.set_candidate(entry_id, app.by, force), told)

    def told(state: State) -> None:
        app.notify(
            f"the candidate is {state.candidate}" if state.candidate else "there is no candidate",
            markup=False,
        )
        done()

    app.attempt(lambda: app.registry.state, ask)


def _asked(
    app: Review,
    question: str,
    lines: Sequence[str],
    entry: Manifest | None,
    change: Callable[[bool], object],
) -> None:
    """One window; where gates failed a second one, and only its yes forces."""
    failed = entry.failed if entry is not None else []

    def forced(yes: bool | None) -> None:
        if yes:
            change(True)

    def answered(yes: bool | None) -> None:
        if not yes:
            return
        if not failed:
            change(False)
            return
        app.push_screen(
            Confirm(
                f"It did not pass {counted(len(failed), 'gate')}. All the same?",
                [*(f"FAILED  {gate}" for gate in failed),
                 "Yes does what --force does on the command line."],
                danger=True,
            ),
            forced,
        )  # fmt: skip

    app.push_screen(Confirm(question, lines, danger=bool(failed)), answered)


def _standing(app: Review, entry: Manifest | None) -> list[str]:
    """What speaks for a policy and against it, before it speaks."""
    out = []
    if not app.config.rollout.follow:
        out.append("! rollout.follow is off here: calls do not ask the registry who speaks.")
    if entry is None:
        return [*out, "base is the model without an adapter."]
    if entry.base != app.config.responder.model:
        out.append(
            f"! It was trained for {entry.base}, calls here speak with "
            f"{app.config.responder.model} and would refuse it."
        )
    if entry.failed:
        n = len(entry.failed)
        out.append(f"gates FAILED ({n} of {len(entry.gates)}), so it takes a second yes:")
        out += [f"  {gate}" for gate in entry.failed]
    elif entry.gates:
        out.append(f"gates         all {len(entry.gates)} passed")
    else:
        out.append("! No gate was measured on it.")
    return out
