"""The process log is JSON lines; the call log never waits and counts what it drops."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.codec import dumps, loads
from gateway.core.record import FIELDS
from gateway.front.asgi import BrokenBody
from gateway.observe.log import CallLog, call_line, setup


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:], logger.level = handlers, level


def test_messages_are_json_lines_on_stderr(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    setup("info")
    logging.getLogger("penstock.test").warning('said "%s"\nand more', "this")
    logging.getLogger("penstock.test").debug("not said")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    line = loads(lines[0])
    assert line["message"] == 'said "this"\nand more'
    assert line["level"] == "warning" and line["logger"] == "penstock.test"


def test_an_exception_comes_with_its_traceback(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    setup("error")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("penstock.test").exception("failed")
    assert "ValueError: broken" in loads(capsys.readouterr().err)["exception"]


def test_the_cut_field_is_the_last_of_a_record() -> None:
    assert FIELDS[-1] == "sealed"


values = st.one_of(
    st.text(max_size=30),
    st.sampled_from([',"sealed":', ',"sealed":"', '","sealed":"x', "\\", '\\"', '"sealed"']),
)


@given(st.dictionaries(st.sampled_from(FIELDS), values), st.sets(st.just("sealed")))
def test_a_call_line_is_the_record_without_what_is_sealed(record: dict[str, Any], absent: set[str]) -> None:
    whole = {field: record.get(field, "") for field in FIELDS if field not in absent}
    line = call_line(dumps(whole))
    assert line.count(b"\n") == 1
    assert loads(line) == {key: item for key, item in whole.items() if key != "sealed"}


def test_calls_are_written_one_line_each(tmp_path: Path) -> None:
    log = CallLog(str(tmp_path / "calls"))
    log.write([dumps({"id": "a"}), dumps({"id": "b", "sealed": "secret"})])
    log.write([])
    log.write([dumps({"id": "c"})])
    log.close(30)
    assert (tmp_path / "calls").read_bytes() == b'{"id":"a"}\n{"id":"b"}\n{"id":"c"}\n'
    assert log.dropped == 0


def test_a_log_that_is_off_does_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    log = CallLog("off")
    log.write([b"{}"])
    log.close(30)
    assert capfd.readouterr().out == ""


def test_stdout_stays_open_after_the_log_is_closed(capfd: pytest.CaptureFixture[str]) -> None:
    log = CallLog("stdout")
    log.write([b'{"id":"a"}'])
    log.close(30)
    log.close(30)
    os.write(1, b"still here\n")
    assert capfd.readouterr().out == '{"id":"a"}\nstill here\n'


def test_a_reader_that_does_not_read_costs_lines_and_not_time(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = CallLog(str(pipe), limit=100_000)
    line = b'{"x":"' + b"x" * 9_990 + b'"}'
    for _ in range(200):
        log.write([line])
    # The pipe takes 64 KiB, the thread holds one batch, 100 kB may wait: most of the 2 MB is gone.
    assert 100 < log.dropped < 200
    os.close(reader)
    log.close(30)


def test_a_file_that_cannot_be_written_costs_lines_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    log = CallLog("/dev/full")
    log.write([b"{}", b"{}"])
    log.close(30)
    assert log.dropped == 2
    assert "No space left" in caplog.text


def test_reopen_follows_a_rotated_file(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    log = CallLog(str(path))
    path.rename(tmp_path / "calls.1")
    log.reopen()
    log.write([b'{"id":"new"}'])
    log.close(30)
    assert path.read_bytes() == b'{"id":"new"}\n'


def test_an_upstream_that_breaks_off_is_no_error_of_the_server(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    setup()
    for error in (BrokenBody("it broke"), RuntimeError("ours")):
        logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
    said = capsys.readouterr().err
    assert "ours" in said and "it broke" not in said
