"""Commands that give secrets, `exec:COMMAND ARG…`: run without a shell, bounded in time and output.

The values are kept by whoever keeps an `Execs`, so that a configuration read again does not run them again
before they are due. Nothing a command printed is ever quoted, and of the command only its program: arguments
may hold secrets too.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PREFIX = "exec:"
DEADLINE = 10.0  # seconds that a command has
MOST = 64 * 1024  # bytes that it may print
REFRESH = 300.0  # seconds a value is good for when nobody says otherwise
_INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_FAR = 1e11  # seconds: no time is later
_EARLY = 0.8  # of the time until a value ends: then it is asked for again
_AGAIN, _LONGEST = 10.0, 300.0  # seconds until a command that failed is tried again, doubled each time


class Failed(Exception):
    """A command gave no secret; the message says why, without anything that it printed."""


@dataclass(slots=True, frozen=True)
class Command:
    """A program (absolute) with its arguments, run in the directory of the file that names it."""

    argv: tuple[str, ...]
    directory: str

    @property
    def source(self) -> str:
        """How it may be shown."""
        return PREFIX + self.argv[0]


def command(text: str, directory: Path) -> Command:
    """The command behind `exec:…`: an absolute path, or a file beside the configuration. Raises `Failed`."""
    try:
        argv = shlex.split(text.removeprefix(PREFIX))
    except ValueError:
        raise Failed("the command's quotes do not match") from None
    if not argv or not argv[0] or "\0" in text:
        raise Failed('names no command; write it as "exec:/path/to/program ARG"')
    program = directory / argv[0]
    if not program.is_file():
        raise Failed("there is no such program: give its absolute path, or put it beside this file")
    if not os.access(program, os.X_OK):
        raise Failed("can't be executed: the file lacks the permission (chmod +x)")
    return Command((str(program), *argv[1:]), str(directory))


@dataclass(slots=True)
class Given:
    """What a command gave: `until` is when it ends by its own word, `due` when it is asked for again.

    Epoch seconds; `until` 0.0: it did not say. `failures` in a row, and why the last.
    """

    value: str
    until: float
    due: float
    failures: int = 0
    why: str = ""


class Execs:
    """The values that commands gave. One thread may read a configuration while another renews.

    `refresh` (seconds) and `lent` (names of further environment variables) are as `[secrets]` says.
    """

    def __init__(
        self,
        run: Callable[[Command, Mapping[str, str]], bytes] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.refresh = REFRESH
        self.lent: tuple[str, ...] = ()
        self._run = run or execute
        self._clock = clock
        self._given: dict[Command, Given] = {}
        self._handed: dict[Command, str] = {}  # what the newest reading was given
        self._lock = threading.Lock()  # never held while a command runs
        self._retry = 0.0  # when a command without any value is tried again; 0.0: there is none

    def value(self, wanted: Command, environ: Mapping[str, str]) -> str:
        """What it gave, asking it the first time. Raises `Failed`."""
        known = self._given.get(wanted)
        if known is None:
            try:
                known = self._asked(wanted, environ)
            except Failed:
                self._retry = self._clock() + _AGAIN
                raise
        with self._lock:
            known = self._given.setdefault(wanted, known)
            self._handed[wanted] = known.value
            return known.value

    def keep(self, used: Iterable[Command]) -> None:
        """A configuration was read with these: the others are forgotten, and what has moved is known."""
        with self._lock:
            for each in self._given.keys() - set(used):
                del self._given[each], self._handed[each]
        self._retry = 0.0

    @property
    def moved(self) -> bool:
        """Whether the configuration would read differently now, or might."""
        if 0.0 < self._retry <= self._clock():
            return True
        with self._lock:
            return any(given.value != self._handed[each] for each, given in self._given.items())

    def due(self) -> list[Command]:
        """Those to be asked again; cheap enough to look every second."""
        now = self._clock()
        with self._lock:
            return [each for each, given in self._given.items() if given.due <= now]

    def renew(self, wanted: Command, environ: Mapping[str, str]) -> str:
        """Ask again; a command that fails keeps its last value. Gives why it failed, "" where it did not."""
        before = self._given.get(wanted)
        if before is None:
            return ""
        try:
            fresh = self._asked(wanted, environ)
        except Failed as failed:
            before.failures += 1
            before.why = str(failed)
            before.due = self._clock() + min(_AGAIN * 2 ** min(before.failures - 1, 8), _LONGEST)
            return before.why
        with self._lock:
            if wanted in self._given:
                self._given[wanted] = fresh
        return ""

    def failing(self) -> dict[str, str]:
        """Commands that failed when they were asked last, and why; their old values are in use."""
        with self._lock:
            return {each.source: given.why for each, given in self._given.items() if given.failures}

    def _asked(self, wanted: Command, environ: Mapping[str, str]) -> Given:
        names = dict.fromkeys((*_INHERITED, *self.lent))
        printed = self._run(wanted, {name: environ[name] for name in names if name in environ})
        now = self._clock()
        value, until = parse(printed, now)
        due = now + self.refresh
        if until:
            due = min(due, now + max((until - now) * _EARLY, 1.0))
        return Given(value, until, due)


def parse(printed: bytes, now: float) -> tuple[str, float]:
    """The secret and when it ends (epoch seconds, 0.0: it does not say). Raises `Failed`.

    Plain text: the first line. JSON, where the text begins with a brace: `value`, and `expires_at` (ISO 8601
    or epoch seconds) or `ttl` (seconds).
    """
    try:
        text = printed.decode().strip()
    except UnicodeDecodeError:
        raise Failed("what it printed is not UTF-8 text") from None
    if not text.startswith("{"):
        value, until = text.split("\n", 1)[0].strip(), 0.0
    else:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise Failed(
                'what it printed begins like JSON and is none: {"value": "…", "ttl": 3600}'
            ) from None
        value, until = document.get("value"), _until(document, now)
    if not isinstance(value, str) or not value:
        raise Failed('it printed no secret: plain text, or JSON such as {"value": "…", "ttl": 3600}')
    return value, until


def _until(document: Mapping[str, Any], now: float) -> float:
    stated, ttl = document.get("expires_at"), document.get("ttl")
    until = 0.0
    if isinstance(stated, str):
        try:
            moment = datetime.fromisoformat(stated)
        except ValueError:
            raise Failed("its expires_at is no ISO 8601 date-time such as 2027-01-01T00:00:00Z") from None
        until = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    elif isinstance(stated, (int, float)) and 0 < stated < _FAR:
        until = float(stated)
    elif stated is None and isinstance(ttl, (int, float)) and 0 < ttl < _FAR:
        until = now + float(ttl)
    elif stated is not None or ttl is not None:
        raise Failed("its expires_at must be a date-time or epoch seconds, its ttl a number of seconds")
    if until and until <= now:
        raise Failed("the secret that it printed has expired already")
    return until


def execute(wanted: Command, environ: Mapping[str, str]) -> bytes:
    """Run it in a session of its own and give what it printed. Raises `Failed`; nothing of it lives on."""
    end = time.monotonic() + DEADLINE
    try:
        process = subprocess.Popen(
            wanted.argv,
            cwd=wanted.directory,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or "its arguments can't be passed on"
        raise Failed(f"can't be started: {reason.lower()}") from None
    try:
        printed = _printed(process, end)
        status = process.wait(max(end - time.monotonic(), 0.01))
    except subprocess.TimeoutExpired:
        raise Failed(f"took longer than {DEADLINE:g} s") from None
    finally:
        # Whatever it has started goes with it: a session's processes share its group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if status:
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        raise Failed(f"ended with {how}")
    return printed


def _printed(process: subprocess.Popen[bytes], end: float) -> bytes:
    """All that it prints until it closes its output."""
    assert process.stdout is not None
    fd, printed = process.stdout.fileno(), b""
    poll = select.poll()  # select() can't look at a descriptor above 1023
    poll.register(fd, select.POLLIN)
    while True:
        left = end - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise subprocess.TimeoutExpired(process.args, DEADLINE)
        piece = os.read(fd, MOST + 1 - len(printed))
        if not piece:
            return printed
        printed += piece
        if len(printed) > MOST:
            raise Failed(f"printed more than {MOST >> 10} KiB")
