"""Sessions of the store that their people gave to learning.

Scored are the policy's own replies, with what was really heard of each; the greeting and other
words of the program are part of the history. A session without a rating still serves L_LI, one
without a face still serves L_GE.
"""

from __future__ import annotations

from collections import Counter

from agent.config import Config
from agent.labels import BY_PERSON, label_session
from agent.records import Consent, Session, Turn
from agent.store import Store
from learning.dialogue import Dataset, Dialogue, Utterance
from learning.errors import DataError

LI_SOURCE = "the listener's face in the windows of each agent turn"


def load(config: Config, *, simulated: bool = False) -> Dataset:
    """All ended, consented and not excluded sessions, oldest first.

    Args:
        config: the store's URL and the rule of the labels (`[labels]`), which are computed anew
            from the stored windows.
        simulated: sessions of simulated users instead of people's.

    Raises:
        StoreError: the store cannot be read.
    """
    dropped: Counter[str] = Counter()
    dialogues = []
    with Store.open(config.store.url) as store:
        for session in store.iter_sessions():
            if (session.source == "simulated") != simulated:
                dropped["of people" if simulated else "simulated"] += 1
                continue
            dialogue = of_session(session, config)
            if dialogue.scored:
                dialogues.append(dialogue)
            else:
                dropped["without a reply of the policy"] += 1
    source = "store:simulated" if simulated else "store"
    return Dataset(source, tuple(dialogues), LI_SOURCE, dropped=dict(dropped))


def load_one(config: Config, given: str) -> Dialogue:
    """One session that learning may read, by its id or the start of it.

    Raises:
        StoreError: no such session, or the store cannot be read.
        DataError: learning may not read it, or the policy said nothing in it.
    """
    with Store.open(config.store.url) as store:
        session = store.get(store.resolve(given))
        live = store.summaries([session.id])[0].live
    why = None
    if session.consent is not Consent.LEARN:
        why = "its person did not give it to learning"
    elif session.excluded:
        why = f"it is excluded from learning ({session.excluded_reason or 'no reason given'})"
    elif live:
        why = "the call is still going on"
    dialogue = of_session(session, config)
    if why is None and not dialogue.scored:
        why = "no reply of the policy in it"
    if why is not None:
        raise DataError(f"session {session.id}: {why}")
    return dialogue


def of_session(session: Session, config: Config) -> Dialogue:
    """One session as a dialogue."""
    fresh = label_session(session, config.labels) if session.windows else session
    turns = tuple(
        _utterance(stored, turn)
        for stored, turn in zip(session.turns, fresh.turns, strict=True)
        if turn.text.strip()
    )
    people = (session.person,) if session.person else ()
    return Dialogue(session.id, turns, session.overall_affect, people, session.policy_id)


def _utterance(stored: Turn, fresh: Turn) -> Utterance:
    if stored.speaker == "user":
        return Utterance("listener", stored.text, scored=False, sentiment=stored.sentiment)
    corrected = (stored.li_rule or "").startswith(BY_PERSON)
    reply = stored.kind == "reply"
    li = (stored if corrected else fresh).li if reply else None
    return Utterance("agent", stored.text, scored=reply, li=li, sentiment=stored.sentiment)
