"""Scripted timelines on virtual time: the state machine's decisions, in milliseconds of real time.

A timeline is driven by `Script`: it feeds voice-activity frames, answers transcription and
end-of-turn requests after a set delay, and plays the agent's replies for a set time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import TurnTaking
from agent.turn_events import (
    FRAME_S,
    Action,
    Attached,
    CancelDraft,
    Detached,
    Draft,
    DraftFailed,
    Event,
    Forget,
    Heard,
    Hold,
    PlaybackEnded,
    PlaybackStarted,
    Preview,
    Release,
    Resume,
    Say,
    Score,
    Scored,
    Show,
    Started,
    TimeOut,
    Transcribe,
    Truncate,
    UserTurn,
    Voice,
)
from agent.turn_taking import PREROLL_S, Phase, TurnTaker

pytestmark = pytest.mark.unit


@dataclass
class Script:
    """Plays the world around a `TurnTaker`."""

    taker: TurnTaker
    asr_s: float = 0.16
    score_s: float = 0.06
    reply_s: float = 0.3
    """Draft to first audio."""
    line_s: float = 2.0
    """How long the agent speaks."""
    complete: float = 0.9
    now: float = 0.0
    log: list[tuple[float, Action]] = field(default_factory=list)
    _due: list[tuple[float, Event]] = field(default_factory=list)
    _speech: list[tuple[float, float, str]] = field(default_factory=list)
    _draft_at: float | None = None
    _play_from: float | None = None
    _play_left: float = 0.0
    _playing: bool = False

    def start(self) -> Script:
        self._take(self.taker.on(Started(), self.now))
        return self

    def user(self, start_s: float, end_s: float, text: str) -> Script:
        """The user speaks `text` from `start_s` to `end_s`."""
        self._speech.append((start_s, end_s, text))
        return self

    def run(self, until_s: float) -> Script:
        while self.now < until_s - 1e-9:
            self.now += FRAME_S
            for due, event in sorted(self._due, key=lambda item: item[0]):
                if due <= self.now:
                    self._due.remove((due, event))
                    self._event(event)
            self._playback()
            speaking = any(a <= self.now - FRAME_S / 2 < b for a, b, _ in self._speech)
            self._event(Voice(0.95 if speaking else 0.02))
        return self

    def did(self, kind: type) -> list[tuple[float, Action]]:
        return [(at, action) for at, action in self.log if isinstance(action, kind)]

    @property
    def turns(self) -> list[str]:
        return [action.text for _, action in self.did(UserTurn)]  # type: ignore[attr-defined]

    @property
    def said(self) -> list[str]:
        return [action.kind for _, action in self.did(Say)]  # type: ignore[attr-defined]

    def _event(self, event: Event) -> None:
        self._take(self.taker.on(event, self.now))

    def _playback(self) -> None:
        if not self._playing and self._play_from is not None and self.now >= self._play_from:
            self._playing, self._play_from, self._play_left = True, None, self.line_s
            self._event(PlaybackStarted())
        elif self._playing and self.taker.phase is not Phase.AGENT_HELD:
            self._play_left -= FRAME_S
            if self._play_left <= 0:
                self._playing = False
                self._event(PlaybackEnded())

    def _take(self, actions: list[Action]) -> None:
        for action in actions:
            self.log.append((self.now, action))
            match action:
                case Transcribe(take, start_s, end_s):
                    first_s = start_s + PREROLL_S + 0.01
                    words = " ".join(t for a, b, t in self._speech if b > first_s and a < end_s)
                    self._due.append((self.now + self.asr_s, Heard(take, words)))
                case Score(take, _, _):
                    self._due.append((self.now + self.score_s, Scored(take, self.complete)))
                case Draft():
                    self._draft_at = self.now
                case CancelDraft():
                    self._draft_at = self._play_from = None
                case Release():
                    assert self._draft_at is not None, "released without a draft"
                    self._play_from = max(self.now, self._draft_at + self.reply_s)
                case Say():
                    self._play_from = self.now + 0.05
                case Truncate():
                    self._playing = False
                case _:
                    pass


def script(**settings: object) -> Script:
    return Script(TurnTaker(TurnTaking(**settings)))  # type: ignore[arg-type]


def test_a_plain_turn_is_taken_and_its_work_overlaps_the_wait() -> None:
    world = script().start().user(3.0, 5.0, "how was your day").run(12)
    assert world.turns == ["how was your day"]
    ((transcribed_at, _),) = world.did(Transcribe)
    ((drafted_at, _),) = world.did(Draft)
    ((released_at, release),) = world.did(Release)
    assert transcribed_at < released_at, "transcription starts before the turn is certain"
    assert drafted_at <= released_at
    assert released_at - 5.0 < 0.45
    assert abs(release.speech_end_s - 5.0) <= FRAME_S  # type: ignore[attr-defined]


def test_the_greeting_comes_first() -> None:
    world = script().start()
    assert [a for _, a in world.log if isinstance(a, Say)] == [Say("greeting")]
    world.run(1.0)
    assert world.taker.phase is Phase.AGENT_SPEAKING


def test_a_pause_within_a_turn_discards_the_draft() -> None:
    """0.5 s of silence in mid-sentence: the model is unsure, the user goes on."""
    world = script()
    world.complete = 0.3
    world.start().user(3.0, 4.0, "I went to the").user(4.5, 5.5, "park with my dog").run(14)
    assert world.did(CancelDraft), "the draft of the first half was thrown away"
    assert world.turns == ["I went to the park with my dog"]
    assert len(world.did(Release)) == 1


def test_an_unfinished_turn_waits_longer_than_a_finished_one() -> None:
    def wait(complete: float) -> float:
        world = script()
        world.complete = complete
        world.start().user(3.0, 4.0, "well I think").run(12)
        return world.did(Release)[0][0] - 4.0

    assert wait(0.9) < wait(0.3) < wait(0.02)
    assert wait(0.02) <= 2.0 + 2 * FRAME_S


def test_no_reply_is_drafted_where_the_turn_is_surely_unfinished() -> None:
    world = script()
    world.complete = 0.01
    world.start().user(3.0, 4.0, "I went to the").run(4.4)
    assert world.did(Transcribe) and not world.did(Draft)


def test_the_user_going_on_while_the_agent_thinks_keeps_one_turn() -> None:
    world = script()
    world.reply_s = 1.5  # a slow policy: the user goes on before the first audio
    world.start().user(3.0, 4.0, "I like tea").user(4.7, 5.5, "and coffee").run(14)
    assert world.turns == ["I like tea and coffee"]
    assert len(world.did(CancelDraft)) == 1


def test_barge_in_holds_at_the_onset_then_truncates() -> None:
    world = script()
    world.line_s = 8.0
    world.start().run(9)  # the greeting is over
    world.user(10.0, 11.0, "tell me a story").user(14.0, 15.5, "stop that please").run(30)
    ((held_at, _),) = world.did(Hold)
    ((truncated_at, _),) = world.did(Truncate)
    assert held_at - 14.0 <= 0.1, "silent within 100 ms of the onset"
    assert held_at < truncated_at
    assert world.turns == ["tell me a story", "stop that please"]
    assert not world.did(Resume)


@pytest.mark.parametrize("word", ["Mm-hmm.", "Yeah.", "Oh, okay.", "Uh-huh", "right, yeah"])
def test_a_backchannel_does_not_interrupt(word: str) -> None:
    world = script()
    world.line_s = 6.0
    world.start().run(7)
    world.user(8.0, 9.0, "tell me a story").user(11.0, 11.4, word).run(24)
    assert len(world.did(Hold)) == 1
    assert len(world.did(Resume)) == 1
    assert not world.did(Truncate)
    assert world.turns == ["tell me a story"]


@pytest.mark.parametrize("word", ["Stop.", "Wait", "No, the other one"])
def test_short_words_that_mean_it_do_interrupt(word: str) -> None:
    world = script()
    world.line_s = 6.0
    world.start().run(7)
    world.user(8.0, 9.0, "tell me a story").user(11.0, 11.5, word).run(24)
    assert len(world.did(Truncate)) == 1
    assert world.turns == ["tell me a story", word]


def test_a_cough_over_the_agent_is_forgotten() -> None:
    world = script()
    world.line_s = 6.0
    world.start().run(7)
    world.user(8.0, 9.0, "tell me a story").user(11.0, 11.2, "").run(24)
    assert not world.did(Truncate)
    assert len(world.did(Resume)) == 1
    assert world.did(Forget)


def test_repeated_false_alarms_make_the_agent_harder_to_stop() -> None:
    world = script()
    world.line_s = 12.0
    world.start().run(13)
    world.user(14.0, 15.0, "tell me a story")
    for k in range(4):
        world.user(17.0 + 2 * k, 17.07 + 2 * k, "")  # clicks of two frames
    world.run(40)
    assert len(world.did(Hold)) == 1, "after one false alarm two frames no longer hold"


def test_the_agents_own_echo_does_not_interrupt() -> None:
    world = script()
    world.line_s = 6.0
    world.start().run(7)
    world.user(8.0, 9.0, "hello").run(10.5)
    assert world.taker.phase is Phase.AGENT_SPEAKING
    world.taker.agent_is_saying("I love a walk in the park. Do you?")
    world.user(11.0, 11.6, "a walk in the park").run(24)
    assert len(world.did(Resume)) == 1
    assert world.turns == ["hello"]


def test_user_talking_through_the_whole_reply() -> None:
    world = script()
    world.line_s = 3.0
    world.start().run(5).user(6.0, 7.0, "so").user(8.0, 20.0, "and another thing").run(40)
    assert len(world.did(Truncate)) == 1
    assert world.turns == ["so", "and another thing"]


def test_two_quick_turns() -> None:
    """The user adds something just as the agent begins: the first turn stands, a second follows."""
    world = script()
    world.start().run(4).user(5.0, 6.0, "one question")
    world.run(6.9)
    assert world.taker.phase is Phase.AGENT_SPEAKING
    world.user(7.0, 8.2, "no wait here is another").run(20)
    assert world.turns == ["one question", "no wait here is another"]


def test_noise_without_words_is_no_turn() -> None:
    world = script().start().run(4).user(5.0, 5.6, "").run(8)
    assert world.did(Forget) and not world.did(Release) and not world.turns
    assert world.taker.phase is Phase.LISTENING


def test_long_turn_with_pauses_is_transcribed_in_parts() -> None:
    world = script()
    world.complete = 0.2
    world.start().run(4)
    for k in range(4):
        world.user(5.0 + 6.6 * k, 11.0 + 6.6 * k, f"part {k}")
    world.run(45)
    assert world.turns == ["part 0 part 1 part 2 part 3"]
    spans = [(a.start_s, a.end_s) for _, a in world.did(Transcribe)]  # type: ignore[attr-defined]
    assert max(end - start for start, end in spans) < 21, "what was frozen is not read again"


def test_captions_are_refreshed_less_often_in_a_long_stretch() -> None:
    world = script().start().run(4).user(5.0, 35.0, "on and on").run(34)
    times = [at for at, _ in world.did(Preview)]
    assert times[1] - times[0] < 1.5 < times[-1] - times[-2]


def test_endless_noise_is_cut_off_and_not_transcribed_over_and_over() -> None:
    world = script(max_user_turn_s=10.0)
    world.start().run(4).user(5.0, 40.0, "la la la").run(30)
    assert world.turns and len(world.did(Transcribe)) <= 3


def test_silence_prompts_then_a_goodbye() -> None:
    world = script(idle_prompt_s=5.0, idle_timeout_s=20.0)
    world.start().run(40)
    assert world.said == ["greeting", "prompt", "prompt", "goodbye"]
    assert len(world.did(TimeOut)) == 1 and world.taker.phase is Phase.ENDED


def test_speaking_again_earns_new_prompts() -> None:
    world = script(idle_prompt_s=5.0, idle_prompts=1, idle_timeout_s=60.0)
    world.start().user(14.0, 15.0, "hello").run(30)
    assert world.said == ["greeting", "prompt", "prompt"]


def test_a_failed_draft_is_an_apology_and_the_turn_is_kept() -> None:
    world = script().start().run(4).user(5.0, 6.0, "hello")
    while world.taker.phase is not Phase.THINKING:
        world.run(world.now + FRAME_S)
    world._play_from = None
    world._event(DraftFailed())
    world.run(9)
    assert world.said == ["greeting", "apology"]
    assert world.turns == ["hello"]


def test_detached_agent_falls_silent_and_goes_on_when_the_peer_is_back() -> None:
    world = script()
    world.line_s = 5.0
    world.start().run(1.0)
    world._event(Detached())
    assert isinstance(world.log[-1][1], Hold)
    world._event(Attached())
    assert isinstance(world.log[-1][1], Resume)


def test_a_late_transcript_still_takes_the_turn() -> None:
    world = script()
    world.asr_s = 3.0
    world.start().run(4).user(5.0, 6.0, "hello there").run(15)
    assert world.turns == ["hello there"]


def test_an_answer_to_an_old_take_is_ignored() -> None:
    taker = TurnTaker(TurnTaking())
    taker.on(Started(), 0.0)
    assert taker.on(Heard(99, "ghost"), 1.0) == []
    assert taker.on(Scored(99, 1.0), 1.0) == []


def test_what_was_said_before_a_hang_up_is_not_lost() -> None:
    world = script().start().run(4).user(5.0, 6.0, "goodbye then").run(6.5)
    pending = world.taker.pending_turn()
    assert pending is not None and pending.text in ("", "goodbye then")
    assert abs(pending.end_s - 6.0) <= FRAME_S


def test_sequential_strategy_waits_the_whole_hangover_and_drafts_after_it() -> None:
    world = script(strategy="sequential")
    world.start().run(4).user(5.0, 6.0, "hello").run(12)
    ((transcribed_at, _),) = world.did(Transcribe)
    assert transcribed_at - 6.0 >= 0.8 - FRAME_S
    assert not world.did(Score) and not world.did(Preview)
    assert world.turns == ["hello"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.05, 4.0), st.floats(0.05, 3.0), st.sampled_from(["", "a b", "yeah"])),
        max_size=12,
    ),
    st.floats(0.0, 1.0),
    st.floats(0.02, 2.0),
    st.floats(0.02, 2.0),
)
def test_whatever_happens_the_machine_stays_sound(
    speech: list[tuple[float, float, str]], complete: float, asr_s: float, reply_s: float
) -> None:
    """Any pattern of speech: every release has a draft (asserted in Script), turns are in order
    and do not overlap, hold is followed by resume or truncate, the machine comes to rest."""
    world = script(idle_timeout_s=30.0)
    world.complete, world.asr_s, world.reply_s = complete, asr_s, reply_s
    world.start()
    at = 1.0
    for gap, length, text in speech:
        world.user(at + gap, at + gap + length, text)
        at += gap + length
    world.run(at + 60)
    assert world.taker.phase is Phase.ENDED, "silence ends every call"
    turns = [action for _, action in world.did(UserTurn)]
    for before, after in zip(turns, turns[1:], strict=False):
        assert before.end_s <= after.start_s + 1e-6  # type: ignore[attr-defined]
    held = False
    for _, action in world.log:
        if isinstance(action, Hold):
            assert not held
            held = True
        elif isinstance(action, Resume | Truncate):
            held = False
    assert not held
    shown = [action.state for _, action in world.did(Show)]  # type: ignore[attr-defined]
    assert all(a != b for a, b in zip(shown, shown[1:], strict=False))
