"""Simulated people hold text calls with a real policy, on the real records and in the real store.

Many calls go on in lock-step, so that the policy writes in batches. What a person would leave
behind is left behind: turns at plausible times, a window of the face every second from which the
shipped rule computes the labels, one rating. The truth is not stored: it follows from the text and
the persona, whose seed is the session's comment (`truth_of`).

The id follows from seed, policy and persona, so that two runs of a study split alike. A call
enters the store when it is over, so a run that was killed leaves no half calls behind.
Left out of the call: sound, pauses, barge-in, turn-taking; every word of the policy is heard.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import numpy as np

from agent.config import Labels
from agent.labels import label_session
from agent.records import AffectWindow, Consent, EndedHow, Session, Turn
from agent.store import Store
from learning.dialogue import Li, Utterance
from learning.errors import DataError
from learning.listener import Assumptions, Listener, Persona
from learning.simulation_audit import audit, comment_of, persona_of, truth_of

__all__ = ["GREETING", "Writes", "audit", "hold_calls", "persona_of", "truth_of"]

GREETING = "Hi, it's good to see you. How are you feeling today?"
CLASSIFIER = "simulated"
SOURCE = "simulated"
WORDS_PER_S = 2.5
LEAST_TURN_S = 0.8
AGENT_PAUSE_S = 0.9
"""From the listener's last word to the agent's first."""
WINDOW_S = 2.0
HOP_S = 1.0


class Writes(Protocol):
    """A policy."""

    def write(self, histories: Sequence[Sequence[Utterance]], seed: int) -> list[str]:
        """One reply a history; the last turn of each is the listener's."""
        ...


def hold_calls(
    store: Store,
    writer: Writes,
    personas: Sequence[Persona],
    turns: int,
    seed: int,
    policy_id: str,
    labels_config: Labels,
    config_digest: str | None = None,
    assumptions: Assumptions = Assumptions(),  # noqa: B008 (frozen)
    greeting: str = GREETING,
) -> list[str]:
    """One call for each persona, kept in `store` with consent to learn.

    Args:
        store: where the sessions go.
        writer: the policy.
        personas: who calls.
        turns: replies of the policy in each call.
        seed: of the calls; the writer gets another one for every batch.
        policy_id: as the sessions and their replies record it.
        labels_config: the rule that computes the labels.
        config_digest: as the sessions record it.
        assumptions: coefficients of the listeners.
        greeting: said by the program before the policy speaks.

    Returns:
        The ids of the sessions, in the order of `personas`.

    Raises:
        DataError: no call or no turn asked for, or the writer's answer has another length.
        StoreError: the store cannot be written.
    """
    if not personas or turns < 1:
        raise DataError(
            f"{len(personas)} simulated calls of {turns} replies", "ask for at least one of each"
        )
    calls = [_Call.begin(who, seed, policy_id, config_digest, assumptions) for who in personas]
    for call, who in zip(calls, personas, strict=True):
        call.session.id = _free_id(store, f"{seed} {policy_id} {who.seed}")
    for call in calls:
        call.greet(greeting)
    for t in range(turns):
        replies = writer.write([call.history for call in calls], seed * 100_003 + t)
        if len(replies) != len(calls):
            raise DataError(f"the policy wrote {len(replies)} replies to {len(calls)} histories")
        for call, reply in zip(calls, replies, strict=True):
            call.reply(reply, last=t == turns - 1)
    for call in calls:
        store.insert(call.ended(labels_config))
    return [call.session.id for call in calls]


def _free_id(store: Store, call: str) -> str:
    """An id that follows from the call; the same call held again gets the next one."""
    name = hashlib.sha256(call.encode()).hexdigest()[:16]
    ids = (f"simulated-{name}-{n}" for n in itertools.count())
    return next(i for i in ids if not store.has(i))


@dataclass(slots=True)
class _Call:
    """One call as it goes on."""

    session: Session
    listener: Listener
    rng: random.Random
    history: list[Utterance] = field(default_factory=list)
    now_s: float = 0.5
    faces: list[tuple[float, Li]] = field(default_factory=list)
    """From when on the face looked how, in order of time."""

    @classmethod
    def begin(
        cls,
        who: Persona,
        seed: int,
        policy_id: str,
        config_digest: str | None,
        assumptions: Assumptions,
    ) -> _Call:
        session = Session(
            consent=Consent.LEARN,
            source="simulated",
            comment=comment_of(who),
            policy_id=policy_id,
            config_digest=config_digest,
        )
        rng = random.Random(f"call {seed} {who.seed}")
        return cls(session, Listener(who, seed, assumptions), rng)

    def greet(self, greeting: str) -> None:
        """The program speaks first; the face is not read then, and the answer feels nothing."""
        self.faces.append((0.0, 0))
        self._add("agent", greeting, "greeting")
        self._listener_says(self.listener.hello())

    def reply(self, text: str, *, last: bool) -> None:
        """A reply of the policy is heard; the listener's face and words answer it."""
        heard = self.listener.hear(self.history, text)
        self._add("agent", text, "reply")
        self.faces.append((self.session.turns[-1].start_s, heard.li))
        if last:
            self.now_s += WINDOW_S + self._pause()  # so that its last window closes
        else:
            self._listener_says(self.listener.answer(heard))

    def ended(self, labels: Labels) -> Session:
        """The whole record of the call, labelled, rated and hung up."""
        ended_at = self.session.started_at + timedelta(seconds=self.now_s)
        update = {
            "windows": _windows(self.faces, self.now_s),
            "ended_at": ended_at,
            "ended_how": EndedHow.HUNG_UP,
            "overall_affect": float(self.listener.rate()),
            "overall_affect_at": ended_at,
            "overall_affect_source": SOURCE,
        }
        return label_session(self.session.model_copy(update=update), labels)

    def _listener_says(self, text: str) -> None:
        self.now_s += self._pause()
        self._add("listener", text, "utterance")
        while_speaking: Li = None if self.faces[-1][1] is None else 0
        self.faces.append((self.session.turns[-1].start_s, while_speaking))

    def _pause(self) -> float:
        """Seconds until the listener speaks; with the shortest turn it holds a window's centre."""
        return self.rng.uniform(0.7, 1.8)

    def _add(self, speaker: str, text: str, kind: str) -> None:
        agent = speaker == "agent"
        start_s = self.now_s + (AGENT_PAUSE_S if agent else 0.0)
        end_s = start_s + max(LEAST_TURN_S, len(text.split()) / WORDS_PER_S)
        spoken_by_policy = kind == "reply"
        turn = Turn.model_validate(
            {
                "index": len(self.session.turns),
                "speaker": "agent" if agent else "user",
                "start_s": round(start_s, 3),
                "end_s": round(end_s, 3),
                "text": text,
                "generated_text": text if spoken_by_policy else None,
                "kind": kind,
                "policy_id": self.session.policy_id if spoken_by_policy else None,
            }
        )
        self.session.turns.append(turn)
        self.history.append(
            Utterance("agent" if agent else "listener", text, scored=spoken_by_policy)
        )
        self.now_s = turn.end_s


def _windows(faces: Sequence[tuple[float, Li]], end_s: float) -> list[AffectWindow]:
    """A window every hop; it looks as the face does at its centre."""
    out = []
    starts_s = np.array([start_s for start_s, _ in faces])
    for index in range(int((end_s - WINDOW_S) / HOP_S) + 1):
        start_s = index * HOP_S
        centre_s = start_s + WINDOW_S / 2
        face = faces[max(0, int(np.searchsorted(starts_s, centre_s, "right")) - 1)][1]
        seen = face is not None
        out.append(
            AffectWindow(
                index=index,
                start_s=start_s,
                end_s=start_s + WINDOW_S,
                face_found=seen,
                coverage=1.0 if seen else 0.0,
                probabilities={"happiness": 0.9, "neutral": 0.1}
                if face
                else {"happiness": 0.1, "neutral": 0.9}
                if seen
                else None,
                valence=(0.7 if face else 0.0) if seen else None,
                positive=bool(face) if seen else None,
                classifier=CLASSIFIER,
            )
        )
    return out
