"""From what a policy writes to what a voice can say: cleaned, cut into chunks, kept short.

Pure text functions. `speakable` is the whole of it: pieces of a streamed reply in, chunks out, each
spoken as soon as it is there. The first chunk may end at a clause, so that the voice starts early.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

FIRST_CLAUSE_WORDS = 3
"""The first chunk may end at a clause mark once it has this many words."""
LONG_SENTENCE_WORDS = 25
"""A later chunk over this may end at a clause mark."""
FORCED_WORDS = 9
"""The first chunk ends before a joining word once it has this many words."""
MAX_CHUNK_WORDS = 40
"""No chunk is longer, marks or not."""

_ABBREVIATION = re.compile(
    r"(?:^|\s)(?:mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|a\.m|p\.m|u\.s|[a-hj-z])\.$", re.I
)
_LIST_NUMBER = re.compile(r"(?:^|\n|[:.!?]\s)\s*\d{1,2}\.$")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)]*(?=\s|$)")
_CLAUSE_END = re.compile(r"[,;:—](?=\s|$)|\s[–—-](?=\s)")
_JOINING = frozenset(
    "and but or so because which that when while where if as then with for".split()
)
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2190-\u21ff\u2b00-\u2bff\ufe0f\u200d\u20e3\U000e0020-\U000e007f]"
)
_SPEAKERS = r"(?:AI|Assistant|Agent|Bot|SmolLM|geli)"
_OWN_PREFIX = re.compile(rf"^\s*\**{_SPEAKERS}\**\s*:\**\s*", re.I)
_USERS_TURN = re.compile(r"(?:^|(?<=[\n.!?*\"]))\s*\**(?:User|USER|Human|You)\**\s*:|<\|")
_VERB = r"(?:\w{3,}[^s\W]s|\w{2,}ing)"
_DIRECTION = re.compile(
    rf"(?:(?:he|she|they|it|i|ai)\s+)?(?:\w+ly\s+)?(?!\w+thing\b|always|perhaps){_VERB}\b.*", re.I
)
"""Smiles warmly, she looks at you, nodding."""


def clean(text: str) -> str:
    """`text` without what cannot be said: markdown, stage directions, emojis, links, role names."""
    text = re.sub(r"```.*?(```|$)", " ", text, flags=re.S)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)  # links and images keep their words
    text = re.sub(r"https?://\S+|www\.\S+", " ", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"\1", text)
    text = re.sub(r"(?<!\w)\*([^*\n]{1,60})\*(?!\w)", _emphasis, text)
    text = re.sub(r"\([^()\n]{1,40}\)|\[[^\[\]\n]{1,40}\]", _direction, text)
    text = re.sub(r"^\s*(?:[-*•+]|\d+[.)])\s+", "", text, flags=re.M)
    text = re.sub(r"(?<=[:.!?])\s+\d{1,2}[.)]\s+(?=[A-Z])", " ", text)  # a list in one line
    text = re.sub(r"^\s*#+\s*", "", text, flags=re.M)
    text = re.sub(r"[*_`#~|<>{}\\]+", " ", _EMOJI.sub(" ", text))
    text = _OWN_PREFIX.sub("", text)
    text = re.sub(r"\s+([,.!?;:…])", r"\1", text)
    text = re.sub(r",+([,.!?;:…])", r"\1", text)  # a bracket's commas beside another mark
    return re.sub(r"\s+", " ", text).strip().removeprefix(", ")


def _emphasis(match: re.Match[str]) -> str:
    """*smiles* goes; an *emphasised* word keeps its place."""
    inside = match.group(1)
    return " " if _DIRECTION.fullmatch(inside.strip()) else inside


def _direction(match: re.Match[str]) -> str:
    """A stage direction goes; a bracket that belongs to the sentence keeps its words."""
    inside = match.group(0)[1:-1].strip()
    is_direction = match.group(0)[0] == "[" or _DIRECTION.fullmatch(inside)
    return " " if is_direction else f", {inside},"


def speakable(pieces: Iterable[str], max_words: int) -> Iterator[str]:
    """Chunks to speak, in order, from the pieces of a streamed reply.

    Ends where the policy starts to write the user's turn, and before `max_words` words, at the end
    of a sentence where there is one. A sentence said before is not said again. A last fragment
    that the token limit cut is dropped when a whole sentence was spoken. Closes `pieces`, which
    stops their generation, once it needs no more.
    """
    chunks = _Chunks(max_words)
    try:
        for piece in pieces:
            yield from chunks.add(piece)
            if chunks.over:
                return
        yield from chunks.finish()
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


class _Chunks:
    """The state of `speakable`."""

    def __init__(self, max_words: int) -> None:
        self._max_words = max_words
        self._raw = ""  # not yet spoken
        self._words = 0  # spoken
        self._said: set[str] = set()
        self._ended_sentence = False
        self._within = False  # the last chunk ended before its sentence did
        self.over = False

    def add(self, piece: str) -> Iterator[str]:
        self._raw += piece
        end = _USERS_TURN.search(self._raw)
        if end:
            self._raw = self._raw[: end.start()]
            yield from self._drain(last=True)
            self.over = True
            return
        yield from self._drain(last=False)

    def finish(self) -> Iterator[str]:
        yield from self._drain(last=True)
        self.over = True

    def _drain(self, *, last: bool) -> Iterator[str]:
        while not self.over and (cut := self._cut(last)):
            raw, self._raw = self._raw[:cut], self._raw[cut:]
            ends = bool(_SENTENCE_END.search(raw.rstrip()[-4:]))
            if last and not self._raw.strip() and not ends and self._ended_sentence:
                return  # the token limit cut this one short
            within, self._within = self._within, not ends and not raw.endswith("\n")
            yield from self._speak(clean(raw), ends, whole=not within)

    def _speak(self, text: str, ends: bool, *, whole: bool) -> Iterator[str]:
        if not re.search(r"\w", text):
            return
        key = re.sub(r"\W+", " ", text.lower()).strip()
        if whole and ends and key in self._said and len(key.split()) > 2:
            return
        words = text.split()
        left = self._max_words - 1 - self._words
        if len(words) > left:
            self.over = True
            if self._words or left <= 0:
                return  # stop at the end of what was said
            text, ends = " ".join(words[:left]).rstrip(",;:—- ") + ".", True
        self._said.add(key)
        self._words += len(text.split())
        self._ended_sentence = self._ended_sentence or ends
        yield text

    def _cut(self, last: bool) -> int:
        """Where the next chunk of `_raw` ends; 0 when more must come first."""
        raw = self._raw
        if not raw.strip():
            return 0
        if _open_mark(raw) and not last:
            return 0  # in the middle of *a stage direction* or (an aside)
        for match in _SENTENCE_END.finditer(raw):
            whole = last or match.end() < len(raw)
            head = raw[: match.end()]
            if whole and not _ABBREVIATION.search(head) and not _LIST_NUMBER.search(head):
                long = len(raw[: match.end()].split()) > LONG_SENTENCE_WORDS
                return self._clause(raw, match.end()) if long else match.end()
        newline = re.search(r"\S(\s*\n)", raw)
        if newline:
            return newline.end()
        clause = self._clause(raw, 0)
        if clause:
            return clause
        return len(raw) if last else 0

    def _clause(self, raw: str, otherwise: int) -> int:
        """The end of a clause that is long enough to be spoken alone."""
        least = LONG_SENTENCE_WORDS if self._words else FIRST_CLAUSE_WORDS
        for match in _CLAUSE_END.finditer(raw):
            if match.end() < len(raw) and len(raw[: match.end()].split()) >= least:
                return match.end()
        words = list(re.finditer(r"\S+", raw))
        forced = MAX_CHUNK_WORDS if self._words else FORCED_WORDS
        for word in words[forced:-1]:
            if word.group().lower() in _JOINING or len(words) > MAX_CHUNK_WORDS:
                return word.start()
        return otherwise


def _open_mark(raw: str) -> bool:
    """Whether a bracket or an asterisk was opened lately and not closed yet."""
    tail = raw[-60:]
    for left, right in (("(", ")"), ("[", "]")):
        if tail.rfind(left) > tail.rfind(right):
            return True
    return raw.replace("**", "").count("*") % 2 == 1 and "*" in tail
