"""The process log as JSON lines on stderr, and the call log: one JSON line per call, never waiting."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from gateway.core.codec import dumps

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# They would log what they send, credentials too.
_TALKATIVE = ("httpx", "httpcore", "hpack", "h2", "psycopg", "redis", "jwt")
_NOTED = ("event", "subject", "detail", "request_id")  # extras that go into the line
_log = logging.getLogger("penstock.log")


class JsonFormatter(logging.Formatter):
    """One line of JSON per message: ts, level, logger, message, and the traceback if there is one.

    A notice's line has its kind as `event`, with `subject` and `detail`.
    """

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "ts": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        line |= {name: getattr(record, name) for name in _NOTED if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return dumps(line).decode()


def setup(level: str = "info") -> None:
    """Make stderr the process log, in place of whatever the root logger wrote to before."""
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [stderr]
    root.setLevel(_LEVELS.get(level, logging.INFO))
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.getLogger("uvicorn.error").addFilter(_unexpected)


def _unexpected(record: logging.LogRecord) -> bool:
    """Not an upstream that breaks off in a body: the client is cut off, and the call's row says why."""
    return not record.exc_info or type(record.exc_info[1]).__name__ != "BrokenBody"


def call_line(record: bytes) -> bytes:
    """A settled record as its log line: without `sealed`, the last of `core.record.FIELDS`.

    Cut, not parsed: inside a JSON string a quote is escaped, so `,"sealed":` is always structure.
    """
    if b'"sealed":' not in record:  # searching backwards costs ten times as much
        return record + b"\n"
    end = record.rfind(b',"sealed":')
    return record + b"\n" if end < 0 else record[:end] + b"}\n"


class CallLog:
    """Call lines to stdout or a file, written by a thread of its own: a slow reader costs lines, not time.

    `target` is "stdout", "off" or a path (opened for appending). At most `limit` bytes wait; what
    does not fit is dropped and counted in `dropped`.
    """

    def __init__(self, target: str, limit: int = 8 << 20) -> None:
        self.dropped = 0
        self._target = target
        self._limit = limit
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._closing = False
        self._turn = threading.Condition()
        self._fd = self._open()
        self._thread = threading.Thread(target=self._run, name="call-log", daemon=True)
        if self._fd >= 0:
            self._thread.start()

    def write(self, records: Sequence[bytes], bare: bool = False) -> None:
        """Queue one line per record; `bare` ones are known to have no `sealed`. Never blocks."""
        if self._fd < 0 or not records:
            return
        batch = b"\n".join([*records, b""]) if bare else b"".join(map(call_line, records))
        with self._turn:
            if self._size + len(batch) > self._limit:
                self.dropped += len(records)
                return
            self._waiting.append(batch)
            self._size += len(batch)
            self._turn.notify()

    def reopen(self) -> None:
        """Open the file anew, after it was rotated away. Raises OSError; the old one is then kept."""
        if self._target not in ("stdout", "off"):
            fresh = self._open()
            try:
                os.dup2(fresh, self._fd, inheritable=False)
            finally:
                os.close(fresh)

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most `timeout` seconds. Idempotent."""
        with self._turn:
            self._closing = True
            self._turn.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if not self._thread.is_alive():
            if self._fd > 2:
                os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._target == "off":
            return -1
        if self._target == "stdout":
            return 1
        return os.open(Path(self._target), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _run(self) -> None:
        while batch := self._next():
            try:
                _write_all(self._fd, batch)
            except OSError as error:
                self.dropped += batch.count(b"\n")
                _log.error("call log %s: %s", self._target, error)

    def _next(self) -> bytes:
        """Everything that waits, b"" once closed and empty."""
        with self._turn:
            while not self._waiting and not self._closing:
                self._turn.wait()
            batch = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            return batch


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
