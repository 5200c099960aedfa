"""Keeps the load-time chatter of MediaPipe and LiteRT off the terminal, and nothing else.

Their native code writes a dozen lines straight to file descriptor 2 when a model is loaded or
closed. No switch turns that off (TF_CPP_MIN_LOG_LEVEL, GLOG_minloglevel and LITERT_LOG_LEVEL were
tried), so the descriptor itself is redirected for that moment and what is not chatter is passed on.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO

_CHATTER = re.compile(
    rb"INFO: \[\w+\.cc:\d+\] |"
    rb"INFO: Created TensorFlow Lite |"
    rb"WARNING: (Logging before InitGoogle|All log messages before absl::InitializeLog)\(\) |"
    rb"[IW]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ \w+\.(cc|h):\d+\] |"
    rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d+,\d+ (I \d+ \d+\] logging|W \d+ \d+\] gcs_client)\.cc:"
)
"""LiteRT's, glog's and Ray's informational and warning lines, as seen. Errors (E, F, `ERROR:`)
pass."""
_lock = threading.RLock()


@contextlib.contextmanager
def chatter_dropped() -> Iterator[None]:
    """Drop known chatter from file descriptor 2 while the block runs; hold all else until its end.

    The descriptor belongs to the whole process: lines of other threads come a moment late, none is
    lost. For loading and closing models only, never around a call.
    """
    with _lock:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        with tempfile.TemporaryFile() as caught:
            os.dup2(caught.fileno(), 2)
            try:
                yield
            finally:
                if sys.stderr is not None:
                    sys.stderr.flush()
                os.dup2(kept, 2)
                os.close(kept)
                _pass_on(caught)


def is_chatter(line: bytes) -> bool:
    """Whether a line is one that a model library writes on every load."""
    return bool(_CHATTER.match(line))


def _pass_on(caught: IO[bytes]) -> None:
    caught.seek(0)
    for line in caught:
        if not is_chatter(line):
            with contextlib.suppress(OSError):  # a closed pipe on stderr is nobody's to mend
                os.write(2, line)
