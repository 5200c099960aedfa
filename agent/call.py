"""One call: audio and video in, voice and captions out, every turn into the log.

Wiring only. What happens when is decided in agent/turn_taking.py; this file carries the decisions
out on the engines (each on its own single-thread lane, never on the event loop) and knows nothing
of the transport: WebRTC, the local sound card and a recording all drive the same five methods.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.affect import Listener
from agent.audio_memory import AudioMemory
from agent.config import Config
from agent.engines.protocols import (
    SAMPLE_RATE_HZ,
    VAD_FRAME_SAMPLES,
    Message,
    Pcm,
    Transcript,
    VoiceStream,
)
from agent.engines.table import Engines
from agent.history import History
from agent.lanes import Lanes
from agent.observed import NOBODY, Marks, Observer, Span
from agent.playback import RATE_HZ as PLAYED_HZ
from agent.playback import Playback
from agent.records import AffectWindow, EndedHow, Latency, Session, Turn
from agent.reply import Kind, Reply
from agent.session_log import SessionLog
from agent.speech_text import speakable
from agent.tasks import Tasks
from agent.turn_events import (
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
from agent.turn_log import TurnLog
from agent.turn_taking import TurnTaker

OnEvent = Callable[[dict[str, Any]], None]
MEMORY_S = 120.0
"""Received audio kept in memory, for the turn in progress; never written anywhere."""
UNPACED_ENDPOINT_S = 0.8
"""Silence before a turn is taken in a fast replay: about a live reply's voice-to-voice time."""

log_ = logging.getLogger("geli.call")


class Call:
    """One call. All methods are for the event loop's thread and return at once.

    Args:
        config: the process's configuration.
        engines: shared models.
        lanes: one executor per engine.
        log: where turns become durable.
        session: the record of this call; grows as it goes on.
        on_event: takes messages for the page (see agent/web).
        listener: reads the user's face; None where nothing may be read.
        paced: False in a fast replay, where wall time means nothing.
        seed: of the policy's sampling.
        observer: hears of turns, windows and failures.
    """

    def __init__(
        self,
        config: Config,
        engines: Engines,
        lanes: Lanes,
        log: SessionLog,
        *,
        session: Session,
        on_event: OnEvent,
        listener: Listener | None = None,
        paced: bool = True,
        seed: int | None = None,
        observer: Observer = NOBODY,
    ) -> None:
        self.id = session.id
        self.session = session
        self.log = log
        self._config = config
        self._engines = engines
        self._lanes = lanes
        self._on_event = on_event
        self._listener = listener
        self._paced = paced
        self._observer = observer
        settings = config.turn_taking
        if not paced:  # the engines take no time there: wait as long as a live reply would
            patient_s = max(settings.min_endpoint_s, UNPACED_ENDPOINT_S)
            settings = settings.model_copy(update={"min_endpoint_s": patient_s})
        self._taker = TurnTaker(settings)
        self._memory = AudioMemory(MEMORY_S)
        self._voice_stream = engines.voice_activity.open()
        self._dialogue = engines.responder.open(seed)
        self._policy_lane = lanes.for_policy()
        self._history = History(
            config.dialogue.system_prompt,
            config.dialogue.history_tokens,
            self._dialogue.count_tokens,
        )
        self._arrived = asyncio.Event()
        self._vad_samples = 0
        self._last_heard_wall = time.perf_counter()
        self._muted = False
        self._reply: Reply | None = None  # being made: a draft, or released
        self._released: int | None = None  # take whose reply may be played
        self._playback: Playback | None = None
        self._played: Reply | None = None  # the reply behind the playback
        self._agent_start_s = 0.0
        self._agent_marks = Marks()
        self._held_s: float | None = None  # the agent has been silent since
        self._agent_latency: Latency | None = None
        self._caption_chunk = -1
        self._transcribed: dict[int, Span] = {}
        self._turn_end_s = 0.0  # the user's last speech before the released reply
        self._taken_wall = 0.0
        self._transcribing = 0
        self._tasks = Tasks(self._engine_failed)
        self._turn_log = TurnLog(
            session, log, lanes, engines.sentiment, config.labels, self._store_failed, observer
        )
        self._over = asyncio.Event()
        self._how = EndedHow.HUNG_UP

    # --- the transport's side -----------------------------------------------------------------

    @property
    def clock_s(self) -> float:
        """The session clock: seconds of audio received."""
        return self._memory.end_s

    @property
    def watched(self) -> bool:
        """Whether video frames are looked at."""
        return self._listener is not None

    def hear(self, pcm: NDArray[np.int16]) -> None:
        """Received audio: 16 kHz mono int16, any length."""
        gain = np.float32(0.0 if self._muted else 1 / 32768)
        self._memory.append(pcm.astype(np.float32) * gain)
        self._last_heard_wall = time.perf_counter()
        self._arrived.set()

    def see(self, rgb: NDArray[np.uint8]) -> None:
        """A video frame, [height, width, 3]; never blocks, may be skipped."""
        if self._listener is not None:
            self._listener.see(rgb, self.clock_s)

    def play(self, samples: int) -> NDArray[np.int16]:
        """The next block of the agent's voice: 48 kHz mono int16, [samples]; silence when none."""
        playback = self._playback
        if playback is None:
            return np.zeros(samples, np.int16)
        started = playback.started
        block = playback.read(samples)
        if playback.started and not started:
            self._agent_started()
        if playback is self._playback and playback.started:
            self._caption_agent(playback)
            if playback.ended:
                failure = self._played.failure if self._played is not None else None
                self._agent_ended(interrupted=False)
                if failure is not None:
                    self._say_failed("broke off", failure)
                self._on(PlaybackEnded(broken=failure is not None))
        return block

    def set_muted(self, on: bool) -> None:
        """Take what arrives as silence."""
        self._muted = on

    def set_camera(self, on: bool) -> None:
        """The camera was switched; without frames the labels become unknown."""
        if self._listener is not None:
            self._listener.set_camera(on)

    def detach(self) -> None:
        """The peer is gone; the call waits for `attach` or `hang_up`."""
        self._on(Detached())

    def attach(self) -> None:
        """The peer is back."""
        self._on(Attached())

    def hang_up(self, how: EndedHow = EndedHow.HUNG_UP) -> None:
        """End the call."""
        if not self._over.is_set():
            self._how = how
            self._over.set()

    async def run(self) -> EndedHow:
        """Hold the call until it is over, then finish its log."""
        loop = asyncio.get_running_loop()
        self._prefill()
        if self._listener is not None:
            self._listener.start(partial(_to_loop, loop, self._window))
        listening = asyncio.create_task(self._listen())
        self._on(Started())
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait({listening, over}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                self._how = EndedHow.CRASHED
                listening.result()
        finally:
            for task in (listening, over):
                task.cancel()
            await asyncio.gather(listening, over, return_exceptions=True)
            await self._close()
        return self._how

    async def settle(self) -> None:
        """Wait until no engine has work of this call left (fast replays run on this)."""
        while True:
            if self.unheard_frames() and not self._over.is_set():
                await asyncio.sleep(0)
            elif self._tasks:
                await self._tasks.finished()
            elif self._listener is not None and self._listener.behind:
                await asyncio.sleep(0.001)
            else:
                return

    def unheard_frames(self) -> int:
        """Whole voice-activity frames that were received and not looked at yet."""
        return (self._memory.end - self._vad_samples) // VAD_FRAME_SAMPLES

    @property
    def agent_has_turn(self) -> bool:
        """Whether the agent speaks or is about to."""
        return self._playback is not None or self._released is not None

    @property
    def user_has_turn(self) -> bool:
        """Whether the user is in the middle of a turn."""
        return self._taker.pending_turn() is not None

    # --- listening ----------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while count := self.unheard_frames():
                begin = self._vad_samples
                pcm = self._memory.samples(begin, begin + count * VAD_FRAME_SAMPLES)
                frames = pcm.reshape(count, VAD_FRAME_SAMPLES)
                judge = partial(_judge, self._voice_stream, frames)
                probabilities = await self._lanes.run("voice_activity", judge)
                for probability in probabilities:
                    self._vad_samples += VAD_FRAME_SAMPLES
                    self._on(Voice(probability), self._vad_samples / SAMPLE_RATE_HZ)
            if self._listener is not None:
                self._listener.advance(self.clock_s)

    def _on(self, event: Event, now: float | None = None) -> None:
        if not self._over.is_set():
            for action in self._taker.on(event, self.clock_s if now is None else now):
                self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Transcribe():
                self._tasks.spawn(self._transcribe(action))
            case Preview():
                # Captions wait for nobody, and nobody's turn waits for captions.
                if not self._transcribing and not self._lanes.waiting("recognizer"):
                    self._tasks.spawn(self._preview(action))
            case Score():
                self._tasks.spawn(self._score(action))
            case Draft(take, text):
                self._draft(take, text)
            case CancelDraft():
                self._drop_reply()
            case Release(take, speech_end_s):
                self._release(take, speech_end_s)
            case UserTurn(start_s, end_s, text):
                self._user_turn(start_s, end_s, text)
            case Hold():
                if self._playback:
                    self._playback.hold()
                    self._held_s = self.clock_s
                    since = self._wall_at(self._vad_samples / SAMPLE_RATE_HZ)
                    self._observer.barge_in(self._taker.voiced_s + time.perf_counter() - since)
            case Resume():
                if self._playback:
                    self._playback.resume()
                    self._held_s = None
            case Truncate():
                self._agent_ended(interrupted=True)
            case Say(kind, number):
                self._say(kind, number)
            case Forget():
                self._caption("user", "", final=True)
            case Show(state):
                self._on_event({"type": "state", "state": state})
            case TimeOut():
                self.hang_up(EndedHow.TIMED_OUT)

    # --- the user's words ---------------------------------------------------------------------

    async def _recognise(self, start_s: float, end_s: float) -> Transcript:
        pcm = self._memory.between(start_s, end_s)
        self._transcribing += 1
        try:
            return await self._lanes.run(
                "recognizer", lambda: self._engines.recognizer.transcribe(pcm)
            )
        finally:
            self._transcribing -= 1

    async def _transcribe(self, action: Transcribe) -> None:
        begun = time.perf_counter()
        heard = await self._recognise(action.start_s, action.end_s)
        self._transcribed = {action.take: (begun, time.perf_counter())}
        if heard.text:
            self._caption("user", heard.text)
        self._on(Heard(action.take, heard.text))

    async def _preview(self, action: Preview) -> None:
        heard = await self._recognise(action.start_s, action.end_s)
        if heard.text and self._taker.user_is_speaking:
            self._caption("user", heard.text)

    async def _score(self, action: Score) -> None:
        pcm = self._memory.between(action.start_s, action.end_s)
        complete = await self._lanes.run(
            "end_of_turn", lambda: self._engines.end_of_turn.complete(pcm)
        )
        self._on(Scored(action.take, complete))

    def _user_turn(self, start_s: float, end_s: float, text: str) -> None:
        last = self.session.turns[-1] if self.session.turns else None
        if last is not None and last.speaker == "user":
            # The agent was cut off before a word of it was heard: still the same turn.
            last.text, last.end_s = f"{last.text} {text}", max(last.end_s, end_s)
            self._caption("user", last.text, final=True, turn=last.index)
            self._turn_log.extend(last, self._memory.between(last.start_s, end_s))
            return
        turn = Turn(
            index=len(self.session.turns),
            speaker="user",
            start_s=start_s,
            end_s=max(start_s, end_s),
            text=text,
            engines={
                "recognizer": self._engines.recognizer.id,
                "voice_activity": self._engines.voice_activity.id,
                "end_of_turn": self._engines.end_of_turn.id,
            },
        )
        self._caption("user", text, final=True, turn=turn.index)
        self._turn_log.add(turn, self._memory.between(start_s, end_s))
        self._observer.turn(turn, Marks(spoken=(self._wall_at(start_s), self._wall_at(end_s))))
        self._turn_log.relabel()

    # --- the reply ----------------------------------------------------------------------------

    def _draft(self, take: int, text: str) -> None:
        self._drop_reply()
        messages = self._history.messages(self.session.turns, text)
        sequential = self._config.turn_taking.strategy == "sequential"

        def source(should_stop: Callable[[], bool]) -> Iterator[str]:
            return speakable(
                _noting_first(self._dialogue.reply(messages, should_stop), reply.token_came),
                self._config.dialogue.max_words,
            )

        reply = self._new_reply("reply", take, source, policy=True, whole=sequential)
        self._begin(reply)

    def _say(self, kind: str, number: int) -> None:
        dialogue = self._config.dialogue
        prompts = dialogue.idle_prompts
        lines: dict[str, tuple[Kind, str]] = {
            "greeting": ("greeting", dialogue.greeting),
            "prompt": ("prompt", prompts[number % len(prompts)]),
            "goodbye": ("goodbye", dialogue.goodbye),
            "apology": ("apology", dialogue.apology),
        }
        named, line = lines[kind]
        self._drop_reply()
        reply = self._new_reply(named, -1, _spoken_line(line), policy=False)
        self._released = -1
        self._begin(reply)

    def _new_reply(
        self, kind: Kind, take: int, source: Any, *, policy: bool, whole: bool = False
    ) -> Reply:
        return Reply(
            kind,
            take,
            source,
            self._engines.speaker,
            self._policy_lane if policy else None,
            self._lanes["speaker"],
            self._reply_grew,
            whole,
        )

    def _begin(self, reply: Reply) -> None:
        self._reply = reply
        self._tasks.spawn(self._make(reply))

    async def _make(self, reply: Reply) -> None:
        await reply.run()
        if reply.kind == "reply":
            made = "cancelled" if reply.cancelled else "ok"
            self._observer.policy("failed" if reply.failure else made)

    def _drop_reply(self) -> None:
        if self._reply is not None:
            self._reply.cancel()
        self._reply = None
        self._released = None
        if self._playback is not None and not self._playback.started:
            self._playback = self._played = None

    def _release(self, take: int, speech_end_s: float) -> None:
        self._released = take
        self._turn_end_s = speech_end_s
        self._taken_wall = time.perf_counter()
        if self._reply is not None:
            self._reply_grew(self._reply)

    def _reply_grew(self, reply: Reply) -> None:
        """A chunk is ready, or the reply is finished."""
        if reply is not self._reply and reply is not self._played:
            return
        if reply is self._reply and reply.take == self._released and self._playback is None:
            if reply.ready:
                self._playback, self._played = Playback(), reply
                self._agent_latency = self._latency(reply)
                self._agent_marks = self._marks(reply)
                self._caption_chunk = -1
            elif reply.done:
                self._no_reply(reply)
                return
        if reply is self._played and self._playback is not None:
            while reply.ready:
                chunk = reply.ready.pop(0)
                self._playback.add(chunk.samples, chunk.words, chunk.text)
                self._taker.agent_is_saying(reply.text)
            if reply.done:
                self._playback.close()

    def _no_reply(self, reply: Reply) -> None:
        """The policy failed or wrote nothing that can be spoken."""
        self._say_failed("no reply", reply.failure)
        self._reply = None
        self._released = None
        self._on(DraftFailed())

    def _say_failed(self, what: str, failure: str | None) -> None:
        log_.warning("%s: %s", what, failure or "nothing speakable", extra=self._about)
        if failure:
            self._notice("The language model did not answer; see the server's log.")

    def _latency(self, reply: Reply) -> Latency | None:
        if reply.kind != "reply":
            return None
        wait_ms = None
        if self._paced:
            wait_ms = (self._taken_wall - self._wall_at(self._turn_end_s)) * 1e3
        return Latency(
            end_of_turn_wait_ms=wait_ms,
            transcription_ms=_ms(self._transcribed.get(reply.take)),
            first_token_ms=reply.timings.first_token_ms,
            first_sentence_ms=reply.timings.first_sentence_ms,
            first_audio_ms=reply.timings.first_audio_ms,
        )

    def _marks(self, reply: Reply) -> Marks:
        if reply.kind != "reply":
            return Marks(first_audio=reply.first_synthesis)
        return Marks(
            end_of_turn_wait=(self._wall_at(self._turn_end_s), self._taken_wall),
            transcription=self._transcribed.get(reply.take),
            first_token=reply.when(reply.timings.first_token_ms),
            first_sentence=reply.when(reply.timings.first_sentence_ms),
            first_audio=reply.first_synthesis,
        )

    def _wall_at(self, clock_s: float) -> float:
        """Wall time at which that moment of the session clock was received."""
        return self._last_heard_wall - (self.clock_s - clock_s)

    # --- the agent's turn ---------------------------------------------------------------------

    def _agent_started(self) -> None:
        self._agent_start_s = self.clock_s
        self._held_s = None
        if self._agent_latency is not None and self._paced:
            since = time.perf_counter() - self._wall_at(self._turn_end_s)
            self._agent_latency.voice_to_voice_ms = since * 1e3
        self._reply = None
        self._released = None
        self._on(PlaybackStarted())

    def _agent_ended(self, *, interrupted: bool) -> None:
        playback, reply = self._playback, self._played
        if interrupted and self._reply is not None:
            self._drop_reply()
        if playback is None or reply is None:
            return
        if interrupted:
            reply.cancel()
            playback.stop()
        self._playback = self._played = None
        held_s, self._held_s = self._held_s, None
        heard = playback.heard_text()
        if not heard:
            return
        program = reply.kind != "reply"
        turn = Turn(
            index=len(self.session.turns),
            speaker="agent",
            start_s=self._agent_start_s,
            end_s=max(self._agent_start_s, self.clock_s if held_s is None else held_s),
            text=heard,
            generated_text=reply.text,
            interrupted=interrupted,
            kind=reply.kind,
            policy_id=None if program else self._engines.responder.policy_id,
            engines={
                "responder": "program" if program else self._engines.responder.id,
                "speaker": self._engines.speaker.id,
            },
            latency=self._agent_latency if not program else None,
        )
        self._caption("agent", heard, final=True, interrupted=interrupted)
        self._turn_log.add(turn)
        spoken = (self._wall_at(turn.start_s), self._wall_at(turn.end_s))
        gap_s = playback.gap_samples / PLAYED_HZ
        self._observer.turn(turn, replace(self._agent_marks, spoken=spoken), gap_s)
        self._prefill()

    def _prefill(self) -> None:
        """Let the policy read the history while nobody waits for it."""
        messages: list[Message] = self._history.messages(self.session.turns)

        async def prefill() -> None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._policy_lane, self._dialogue.prefill, messages)

        self._tasks.spawn(prefill())

    # --- captions -----------------------------------------------------------------------------

    def _caption(
        self,
        speaker: str,
        text: str,
        *,
        turn: int | None = None,
        final: bool = False,
        interrupted: bool = False,
    ) -> None:
        if turn is None:
            turn = len(self.session.turns)
            if speaker == "user" and self._playback is not None and self._playback.started:
                turn += 1  # the agent's turn, still being played, comes first
            elif speaker == "user" and turn and self.session.turns[-1].speaker == "user":
                turn -= 1  # the last turn goes on (see `_user_turn`)
                text = f"{self.session.turns[-1].text} {text}".strip()
        message = {"type": "caption", "speaker": speaker, "turn": turn, "text": text}
        extra = {"interrupted": True} if interrupted else {}
        self._on_event({**message, "final": final, **extra})

    def _caption_agent(self, playback: Playback) -> None:
        chunk = playback.current_chunk()
        if chunk != self._caption_chunk and not playback.ended:
            self._caption_chunk = chunk
            self._caption("agent", playback.text_through(chunk))

    def _window(self, window: AffectWindow) -> None:
        self._turn_log.window(window)
        self._observer.window(window)
        if self._listener is not None:
            self._observer.frames(self._listener.read, self._listener.dropped)
        self._on_event({"type": "face", "found": window.face_found})

    @property
    def _about(self) -> dict[str, str]:
        """What every log line of this call carries."""
        return {"session": self.id}

    # --- the end ------------------------------------------------------------------------------

    async def _close(self) -> None:
        self._agent_ended(interrupted=True)
        pending = self._taker.pending_turn()
        self._drop_reply()
        if pending is not None and self._how is not EndedHow.CRASHED:
            self._tasks.spawn(self._last_words(pending))
        await self._tasks.close()
        self._policy_lane.shutdown(wait=False)
        if self._listener is not None:
            await self._lanes.run("listener", self._listener.close)
        await self._turn_log.close(self._how, datetime.now(UTC))
        self._observer.ended(self._how, self.session.turns)
        log_.info("ended, %s, %d turns", self._how, len(self.session.turns), extra=self._about)

    async def _last_words(self, turn: UserTurn) -> None:
        """Log what the user was saying when the call ended."""
        text = turn.text or (await self._recognise(turn.start_s, turn.end_s)).text
        if text:
            self._user_turn(turn.start_s, turn.end_s, text)

    def _notice(self, text: str) -> None:
        self._on_event({"type": "notice", "level": "warn", "text": text})

    def _store_failed(self) -> None:
        self._notice(
            "The session log cannot be written just now; it is kept in memory and retried."
        )

    def _engine_failed(self, error: BaseException) -> None:
        log_.error("an engine failed", exc_info=error, extra=self._about)
        self._notice("A part of the agent failed; see the server's log.")
        self.hang_up(EndedHow.CRASHED)


def _to_loop(
    loop: asyncio.AbstractEventLoop, take: Callable[[AffectWindow], None], window: AffectWindow
) -> None:
    loop.call_soon_threadsafe(take, window)


def _ms(span: Span | None) -> float | None:
    return None if span is None else (span[1] - span[0]) * 1e3


def _judge(stream: VoiceStream, frames: Pcm) -> list[float]:
    """Speech probabilities of `frames` [n, 512]."""
    return [stream.feed(frame) for frame in frames]


def _noting_first(pieces: Iterator[str], note: Callable[[], None]) -> Iterator[str]:
    for piece in pieces:
        note()
        yield piece


def _spoken_line(line: str) -> Callable[[Callable[[], bool]], Iterator[str]]:
    return lambda should_stop: iter([line])
