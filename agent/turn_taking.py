"""Who has the turn: a state machine over the session clock, with no I/O and no clock of its own.

Events come in with the time they happened (`TurnTaker.on(event, now)`), actions come out; the
call (agent/call.py) carries them out and decides nothing. So a whole scripted conversation replays
in milliseconds in tests.

What it owns:

- end of turn: a pause of `pause_s` starts a *take*: the utterance so far is transcribed and scored
  by the semantic end-of-turn model at once, and a reply is drafted from the words, all while the
  silence is still being waited out. The turn is taken when the silence is as long as the score
  demands (see `_endpoint_s`). If the user goes on, the take and its draft are thrown away.
- barge-in: user speech over the agent *holds* playback at its onset, because the user must not
  wait for a decision; the decision follows. Words that are no backchannel and no echo, or speech
  that simply goes on, truncate the agent's turn to what was heard; otherwise playback resumes.
- idle prompts, the greeting, time-outs, over-long turns, a lost and regained peer.
"""

from __future__ import annotations

import enum
import re

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

PREROLL_S = 0.5
"""Audio kept before the detected onset, so that the first consonant is not cut."""
RESUME_SPEECH_S = 2 * FRAME_S
"""Speech after a pause that means the user goes on."""
FREEZE_AFTER_S = 10.0
"""A stretch this long is not transcribed again when the user goes on after a pause."""
RESCORE_AT_S = 0.6
"""Silence at which a pause that looked unfinished is scored once more."""
HOLD_LIMIT_S = 2.0
"""Longest wait for the words of a hold before playback goes on."""

BACKCHANNELS = frozenset(
    "ah aha alright cool gotcha great hm hmm huh k mhm mhmm mm mmhm mmm nice oh ok okay really "
    "right sure true uh uhhuh um wow yeah yep yes yup wonderful exactly i see uh-huh mm-hmm "
    "mm-hm".split()
)
"""Words with which a listener shows that they follow, without wanting the turn."""


class Phase(enum.Enum):
    """Who has the turn."""

    WAITING = "nobody is connected yet"
    LISTENING = "the turn is the user's, who is silent"
    USER_SPEAKING = "the user speaks"
    USER_PAUSED = "the user fell silent; is the turn over?"
    THINKING = "the turn was taken; no audio of the reply yet"
    AGENT_SPEAKING = "the agent speaks"
    AGENT_HELD = "the user spoke over the agent, who fell silent; was it meant to interrupt?"
    ENDED = "the call is over"


_SHOWN = {
    Phase.LISTENING: "listening",
    Phase.USER_SPEAKING: "listening",
    Phase.USER_PAUSED: "listening",
    Phase.THINKING: "thinking",
    Phase.AGENT_SPEAKING: "speaking",
    Phase.AGENT_HELD: "listening",
}


class TurnTaker:
    """The state machine. `on` is the only method with an effect."""

    def __init__(self, settings: TurnTaking) -> None:
        self._s = settings
        self._sequential = settings.strategy == "sequential"
        self.phase = Phase.WAITING
        self._shown = ""
        self._speech_run_s = 0.0  # speech without a break, up to now
        self._voiced_s = 0.0  # all speech of this utterance
        self._speech_end_s = 0.0  # end of the last speech frame
        self._turn_start_s = 0.0  # start of the utterance
        self._segment_start_s = 0.0  # start of the part that is still transcribed
        self._prefix = ""  # words before the segment, frozen
        self._take = 0
        self._take_open = False  # a take of the present pause exists
        self._words: str | None = None  # what the present take said, once heard
        self._complete: float | None = None
        self._rescored = False
        self._cut_off = False  # the turn is taken although the user still speaks
        self._drafting = False
        self._previewed_s = 0.0
        self._quiet_since_s = 0.0  # nobody has spoken since
        self._user_spoke_s = 0.0
        self._prompts = 0
        self._false_alarms = 0  # holds of this agent turn that came to nothing
        self._held_s = 0.0
        self._leaving = False
        self._detached = False
        self._agent_words: list[str] = []

    # --- what the call tells and asks besides events ------------------------------------------

    def agent_is_saying(self, text: str) -> None:
        """The words of the agent's turn so far, by which an echo of them is known."""
        self._agent_words = _words(text)

    @property
    def user_is_speaking(self) -> bool:
        """Whether words heard now belong to a turn in progress."""
        return self.phase in (Phase.USER_SPEAKING, Phase.AGENT_HELD)

    def pending_turn(self) -> UserTurn | None:
        """What the user has said and no `UserTurn` was given for, when the call ends now; its
        text is empty where it was not recognised yet."""
        if self.phase not in (Phase.USER_SPEAKING, Phase.USER_PAUSED, Phase.THINKING):
            return None
        text = self._text() if self._words is not None else ""
        return UserTurn(self._turn_start_s, self._speech_end_s, text)

    # --- the machine --------------------------------------------------------------------------

    def on(self, event: Event, now: float) -> list[Action]:
        """Take one event at session time `now` (seconds); return what must be done, in order."""
        if self.phase is Phase.ENDED:
            return []
        actions = self._react(event, now)
        if self.phase in _SHOWN and _SHOWN[self.phase] != self._shown:
            self._shown = _SHOWN[self.phase]
            actions.append(Show(self._shown))
        return actions

    def _react(self, event: Event, now: float) -> list[Action]:
        match event:
            case Started():
                self._enter_listening(now)
                self._user_spoke_s = now
                return [Say("greeting")]
            case Voice(probability):
                return self._voice(probability, now)
            case Heard(take, text):
                return self._heard(text, now) if take == self._take else []
            case Scored(take, complete):
                if take != self._take or not self._take_open:
                    return []
                self._complete = complete
                return self._maybe_draft(now) + self._maybe_take_turn(now)
            case PlaybackStarted():
                return self._playback_started(now)
            case PlaybackEnded(broken):
                return self._playback_ended(now, broken)
            case DraftFailed():
                return [Say("apology")] if self.phase is Phase.THINKING else []
            case Detached():
                return self._detach()
            case Attached():
                return self._attach(now)

    # --- voice ----------------------------------------------------------------------------------

    def _voice(self, probability: float, now: float) -> list[Action]:
        over_agent = self.phase in (Phase.AGENT_SPEAKING, Phase.AGENT_HELD)
        threshold = self._s.barge_in_threshold if over_agent else self._s.speech_threshold
        speech = probability >= threshold
        self._speech_run_s = self._speech_run_s + FRAME_S if speech else 0.0
        match self.phase:
            case Phase.LISTENING:
                if self._speech_run_s >= self._s.speech_start_s:
                    self._start_utterance(now)
                    return []
                return self._idle(now)
            case Phase.USER_SPEAKING:
                return self._speaking(speech, now)
            case Phase.USER_PAUSED | Phase.THINKING:
                if self._speech_run_s >= RESUME_SPEECH_S and not self._cut_off:
                    return self._go_on(now)
                return self._maybe_pause(now) + self._maybe_take_turn(now)
            case Phase.AGENT_SPEAKING:
                onset_s = self._s.barge_in_onset_s + self._false_alarms * FRAME_S
                sure = probability >= self._s.barge_in_sure and not self._false_alarms
                if (sure or self._speech_run_s >= onset_s) and not self._leaving:
                    return self._hold(now)
            case Phase.AGENT_HELD:
                return self._held(speech, now)
            case _:
                pass
        return []

    def _start_utterance(self, now: float) -> None:
        self.phase = Phase.USER_SPEAKING
        self._turn_start_s = max(0.0, now - self._speech_run_s)
        self._segment_start_s = max(0.0, self._turn_start_s - PREROLL_S)
        self._prefix = ""
        self._voiced_s = self._speech_run_s
        self._speech_end_s = now
        self._previewed_s = now
        self._open_new_take()

    def _open_new_take(self) -> None:
        """Whatever is still being worked on belongs to the past."""
        self._take += 1
        self._take_open = False
        self._words = None
        self._complete = None
        self._rescored = False
        self._cut_off = False

    def _speaking(self, speech: bool, now: float) -> list[Action]:
        self._user_spoke_s = now
        if speech:
            self._voiced_s += FRAME_S
            self._speech_end_s = now
            # Longer stretches take longer to recognise: do not let captions crowd out the turn.
            every_s = max(self._s.preview_s, 0.2 * (now - self._segment_start_s))
            if now - self._previewed_s >= every_s and not self._sequential:
                self._previewed_s = now
                return [Preview(self._segment_start_s, now)]
            if now - self._turn_start_s > 1.5 * self._s.max_user_turn_s:
                actions = self._pause(now)  # no pause in sight (music, a noisy room)
                self._cut_off = True
                return actions
            return []
        return self._maybe_pause(now)

    def _maybe_pause(self, now: float) -> list[Action]:
        pause_s = self._s.sequential_hangover_s if self._sequential else self._s.pause_s
        if self._take_open or now - self._speech_end_s < pause_s - 1e-9:
            return []
        return self._pause(now)

    def _pause(self, now: float) -> list[Action]:
        """A pause: start a take, so that its work overlaps the wait."""
        self.phase = Phase.USER_PAUSED
        self._open_new_take()
        self._take_open = True
        actions: list[Action] = [Transcribe(self._take, self._segment_start_s, now)]
        if self._sequential:
            self._complete = 1.0
        else:
            actions.append(Score(self._take, self._turn_start_s, now))
        return actions

    def _go_on(self, now: float) -> list[Action]:
        """The user speaks again before a word of the reply was played: same turn."""
        if self._words and self._speech_end_s - self._segment_start_s > FREEZE_AFTER_S:
            self._prefix = self._text()
            self._segment_start_s = max(self._speech_end_s, now - self._speech_run_s - PREROLL_S)
        self.phase = Phase.USER_SPEAKING
        self._voiced_s += self._speech_run_s
        self._speech_end_s = now
        self._user_spoke_s = now
        self._open_new_take()
        return self._drop_draft()

    def _drop_draft(self) -> list[Action]:
        if not self._drafting:
            return []
        self._drafting = False
        return [CancelDraft()]

    # --- end of turn ----------------------------------------------------------------------------

    def _heard(self, text: str, now: float) -> list[Action]:
        if not self._take_open:
            return []
        self._words = text
        if self.phase is Phase.AGENT_HELD:
            return self._judge_hold(now)
        if self.phase is not Phase.USER_PAUSED:
            return []
        if not self._text():
            self._enter_listening(now)
            return [*self._drop_draft(), Forget()]
        return self._maybe_draft(now) + self._maybe_take_turn(now)

    def _text(self) -> str:
        return " ".join(part for part in (self._prefix, self._words or "") if part)

    def _maybe_draft(self, now: float) -> list[Action]:
        if self._drafting or self.phase is not Phase.USER_PAUSED or not self._words:
            return []
        hopeless = self._complete is not None and self._complete < self._s.draft_threshold
        if hopeless and now - self._speech_end_s < RESCORE_AT_S:
            return []
        self._drafting = True
        return [Draft(self._take, self._text())]

    def _endpoint_s(self) -> float | None:
        """Silence after which the turn is over: short when the model calls it complete, up to
        `max_endpoint_s` the surer it is that more will come; None while it has not answered."""
        if self._sequential:
            return self._s.sequential_hangover_s
        if self._now_too_long:
            return self._s.min_endpoint_s
        if self._complete is None:
            return None
        doubt = max(0.0, 1.0 - self._complete / max(self._s.complete_threshold, 1e-6))
        return self._s.min_endpoint_s + doubt * (self._s.max_endpoint_s - self._s.min_endpoint_s)

    @property
    def _now_too_long(self) -> bool:
        return self._speech_end_s - self._turn_start_s > self._s.max_user_turn_s

    def _maybe_take_turn(self, now: float) -> list[Action]:
        if self.phase is not Phase.USER_PAUSED or not self._take_open:
            return []
        silence_s = now - self._speech_end_s
        actions: list[Action] = []
        unfinished = self._complete is not None and self._complete < self._s.complete_threshold
        if unfinished and not self._rescored and silence_s >= RESCORE_AT_S:
            self._rescored = True
            actions.append(Score(self._take, self._turn_start_s, now))
        if self._words is None:
            return actions
        actions += self._maybe_draft(now)
        endpoint_s = self._endpoint_s()
        if endpoint_s is None:
            endpoint_s = self._s.max_endpoint_s
        if silence_s < endpoint_s - 1e-9 and not self._cut_off:
            return actions
        self.phase = Phase.THINKING
        if not self._drafting:
            self._drafting = True
            actions.append(Draft(self._take, self._text()))
        return [*actions, Release(self._take, self._speech_end_s)]

    # --- the agent's turn -----------------------------------------------------------------------

    def _playback_started(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if self.phase is Phase.THINKING:
            actions.append(UserTurn(self._turn_start_s, self._speech_end_s, self._text()))
            self._prompts = 0
        elif self.phase in (Phase.USER_SPEAKING, Phase.USER_PAUSED):
            # A line of the program's own (greeting, prompt) met the user's speech on the way.
            self._leaving = False
            return [Truncate()]
        self._drafting = False
        self._open_new_take()
        self._speech_run_s = 0.0
        self._false_alarms = 0
        self._agent_words = []
        self.phase = Phase.AGENT_SPEAKING
        return actions

    def _playback_ended(self, now: float, broken: bool) -> list[Action]:
        if self._leaving:
            self.phase = Phase.ENDED
            return [TimeOut()]
        if self.phase is Phase.AGENT_SPEAKING:
            self._enter_listening(now, keep_run=True)
            if broken:  # else the user waits for the rest
                return [Say("apology")]
        return []

    @property
    def voiced_s(self) -> float:
        """How long the user has been heard in the utterance at hand."""
        return self._voiced_s

    def _hold(self, now: float) -> list[Action]:
        run_s = self._speech_run_s
        self._start_utterance(now)
        self._voiced_s = run_s
        self.phase = Phase.AGENT_HELD
        self._held_s = now
        return [Hold()]

    def _held(self, speech: bool, now: float) -> list[Action]:
        if speech:
            self._voiced_s += FRAME_S
            self._speech_end_s = now
            if self._take_open and self._speech_run_s >= RESUME_SPEECH_S:
                self._open_new_take()
            if self._voiced_s >= self._s.barge_in_confirm_s:
                return self._barge_in(Phase.USER_SPEAKING, now)
            return []
        silence_s = now - self._speech_end_s
        if not self._take_open and silence_s >= self._s.pause_s - 1e-9:
            self._take_open = True
            return [
                Transcribe(self._take, self._segment_start_s, now),
                Score(self._take, self._turn_start_s, now),
            ]
        if self._words is not None and silence_s >= self._s.resume_after_s:
            return self._resume()
        if silence_s > HOLD_LIMIT_S:
            return self._resume()
        return []

    def _judge_hold(self, now: float) -> list[Action]:
        words = _words(self._words or "")
        if words and not self._is_backchannel(words) and not self._is_echo(words):
            return self._barge_in(Phase.USER_PAUSED, now)
        if not words or now - self._speech_end_s >= self._s.resume_after_s:
            return self._resume()
        return []  # a backchannel: playback goes on once the user stays silent

    def _is_backchannel(self, words: list[str]) -> bool:
        short = len(words) <= self._s.backchannel_max_words
        return short and all(word in BACKCHANNELS for word in words)

    def _is_echo(self, words: list[str]) -> bool:
        """Whether the microphone only heard the agent: its very words, in order."""
        if len(words) < 3:
            return False
        text, said = " ".join(words), " ".join(self._agent_words)
        return f" {text} " in f" {said} "

    def _barge_in(self, phase: Phase, now: float) -> list[Action]:
        self.phase = phase
        self._user_spoke_s = now
        actions: list[Action] = [Truncate()]
        if phase is Phase.USER_SPEAKING and self._take_open:
            self._open_new_take()
        if phase is Phase.USER_PAUSED:
            actions += self._maybe_draft(now) + self._maybe_take_turn(now)
        return actions

    def _resume(self) -> list[Action]:
        self._false_alarms += 1
        self._open_new_take()
        self._speech_run_s = 0.0
        self.phase = Phase.AGENT_SPEAKING
        return [Forget(), Resume()]

    # --- silence, absence -----------------------------------------------------------------------

    def _enter_listening(self, now: float, keep_run: bool = False) -> None:
        self.phase = Phase.LISTENING
        self._open_new_take()
        if not keep_run:
            self._speech_run_s = 0.0
        self._quiet_since_s = now

    def _idle(self, now: float) -> list[Action]:
        if self._detached or self._leaving or self._speech_run_s > 0:
            return []
        if now - self._user_spoke_s >= self._s.idle_timeout_s:
            self._leaving = True
            return [Say("goodbye")]
        quiet_s = now - self._quiet_since_s
        if quiet_s >= self._s.idle_prompt_s and self._prompts < self._s.idle_prompts:
            self._prompts += 1
            self._quiet_since_s = now
            return [Say("prompt", self._prompts - 1)]
        return []

    def _detach(self) -> list[Action]:
        self._detached = True
        return [Hold()] if self.phase is Phase.AGENT_SPEAKING else []

    def _attach(self, now: float) -> list[Action]:
        self._detached = False
        self._quiet_since_s = now
        self._user_spoke_s = max(self._user_spoke_s, now)
        return [Resume()] if self.phase is Phase.AGENT_SPEAKING else []


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())
