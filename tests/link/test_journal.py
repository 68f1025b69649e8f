"""The journal: what a killed worker leaves behind, read once and as a whole."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import FaultError
from gateway.link.journal import JournalReader, JournalWriter
from gateway.link.segments import SEGMENT, Segments
from gateway.link.slots import ROOM


def record(number, size=0):
    return json.dumps({"id": number, "pad": "x" * size}).encode()


def ids(records):
    return [json.loads(entry)["id"] for entry in records]


def test_settled_records_come_out_in_order_and_once(tmp_path):
    writer, reader = JournalWriter(tmp_path), JournalReader(tmp_path)
    assert not reader.pending()
    slots = [writer.begin(record(n)) for n in range(10)]
    for n, slot in enumerate(slots):
        writer.end(slot, record(n))
    assert reader.pending()
    assert ids(reader.read(4)) == [0, 1, 2, 3]
    assert ids(reader.read(100)) == [4, 5, 6, 7, 8, 9]
    assert reader.read(100) == []
    assert not reader.pending()
    assert reader.open_calls() == []


def test_open_calls_are_those_that_did_not_end(tmp_path):
    writer, reader = JournalWriter(tmp_path), JournalReader(tmp_path)
    slots = [writer.begin(record(n)) for n in range(4)]
    writer.end(slots[1], record(1))
    writer.end(slots[3], record(3))
    assert writer.begin(record(9)) == slots[3]
    assert ids(reader.read(10)) == [1, 3]
    assert sorted(ids(reader.open_calls())) == [0, 2, 9]


def test_a_call_that_never_began_still_leaves_its_record(tmp_path):
    writer, reader = JournalWriter(tmp_path), JournalReader(tmp_path)
    open_slot = writer.begin(record(0))
    writer.end(-1, record(1))
    assert ids(reader.read(10)) == [1]
    assert ids(reader.open_calls()) == [0]
    writer.end(open_slot, record(0))
    assert reader.open_calls() == []


def test_a_call_killed_between_its_record_and_freeing_its_slot_is_settled_not_open(tmp_path):
    writer = JournalWriter(tmp_path)
    slot = writer.begin(record(1))
    writer._slots.settling(slot, writer._log.reserve(len(record(1))))
    before = JournalReader(tmp_path)
    assert ids(before.open_calls()) == [1]  # announced, not written: still open
    writer._log.append(record(1))
    reader = JournalReader(tmp_path)
    assert ids(reader.read(10)) == [1]
    assert reader.open_calls() == []
    assert JournalReader(tmp_path, reader.offset).open_calls() == []


def test_reading_goes_on_at_a_committed_offset(tmp_path):
    writer = JournalWriter(tmp_path)
    for n in range(5):
        writer.end(writer.begin(record(n)), record(n))
    first = JournalReader(tmp_path)
    first.read(3)
    second = JournalReader(tmp_path, first.offset)
    assert ids(second.read(10)) == [3, 4]
    second.rewind(first.offset)
    assert ids(second.read(10)) == [3, 4]


def test_segments_go_away_only_when_they_are_committed(tmp_path):
    writer, reader = JournalWriter(tmp_path), JournalReader(tmp_path)
    for n in range(10):
        writer.end(writer.begin(record(n)), record(n, SEGMENT // 3))
    assert ids(reader.read(100)) == list(range(10))
    before = sorted(path.name for path in tmp_path.glob("*.log"))
    assert len(before) == 5
    JournalReader(tmp_path).committed(reader.offset)
    assert [path.name for path in tmp_path.glob("*.log")] == before[-1:]
    writer.end(writer.begin(record(10)), record(10))
    assert ids(reader.read(100)) == [10]


def test_an_offset_before_the_oldest_segment_goes_on_at_the_oldest(tmp_path):
    writer, reader = JournalWriter(tmp_path), JournalReader(tmp_path)
    for n in range(6):
        writer.end(writer.begin(record(n)), record(n, SEGMENT // 2))
    reader.read(3)
    reader.committed(reader.offset)
    assert ids(JournalReader(tmp_path, 0).read(10)) == [2, 3, 4, 5]


def test_a_segment_prepared_ahead_is_used(tmp_path):
    writer, reader = JournalWriter(tmp_path), JournalReader(tmp_path)
    for n in range(6):
        writer.prepare()
        writer.end(writer.begin(record(n)), record(n, SEGMENT // 3))
    assert ids(reader.read(100)) == list(range(6))


def test_a_damaged_tail_is_not_read(tmp_path):
    writer = JournalWriter(tmp_path)
    for n in range(3):
        writer.end(writer.begin(record(n)), record(n))
    writer.close()
    log = tmp_path / "000000.log"
    content = bytearray(log.read_bytes())
    content[content.rindex(b'"id": 2')] ^= 1
    log.write_bytes(content)
    reader = JournalReader(tmp_path)
    assert ids(reader.read(10)) == [0, 1]
    assert reader.read(10) == []


def test_no_new_call_begins_while_too_much_is_unread_but_open_ones_end(tmp_path):
    writer, reader = JournalWriter(tmp_path, most_unread=2), JournalReader(tmp_path)
    slots = [writer.begin(record(n)) for n in range(4)]
    for n, slot in enumerate(slots):
        writer.end(slot, record(n, SEGMENT // 2))
    with pytest.raises(FaultError) as refusal:
        writer.begin(record(4))
    assert (refusal.value.code, refusal.value.status) == ("gateway_ledger_full", 503)
    assert ids(reader.read(10)) == [0, 1, 2, 3]
    reader.committed(reader.offset)
    writer.end(writer.begin(record(4)), record(4))
    assert ids(reader.read(10)) == [4]


def test_a_full_disk_refuses_new_calls_and_loses_no_settled_one(tmp_path, monkeypatch):
    writer, reader = JournalWriter(tmp_path), JournalReader(tmp_path)
    slots = [writer.begin(record(n)) for n in range(3)]
    create = Segments._create

    def full(self, number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Segments, "_create", full)
    for n, slot in enumerate(slots):
        writer.end(slot, record(n, SEGMENT - 1000))
    with pytest.raises(FaultError):
        writer.begin(record(3))
    assert ids(reader.read(10)) == [0]
    assert sorted(ids(reader.open_calls())) == [1, 2]
    monkeypatch.setattr(Segments, "_create", create)
    writer.prepare()
    assert ids(reader.read(10)) == [1, 2]
    writer.begin(record(3))


def test_the_slot_table_grows_to_its_bound_and_keeps_what_it_holds(tmp_path):
    writer = JournalWriter(tmp_path, slots=1000)
    slots = [writer.begin(record(n)) for n in range(1000)]
    assert sorted(slots) == list(range(1000))
    with pytest.raises(FaultError) as refusal:
        writer.begin(record(1000))
    assert refusal.value.code == "gateway_ledger_full"
    assert sorted(ids(JournalReader(tmp_path).open_calls())) == list(range(1000))
    writer.end(slots[7], record(7))
    assert writer.begin(record(1001)) == slots[7]


def test_an_oversize_record_is_cut_to_fit_and_stays_json(tmp_path):
    writer, reader = JournalWriter(tmp_path), JournalReader(tmp_path)
    writer.begin(record(1, 10 * ROOM))
    slot = writer.begin(record(2))
    long = {
        "id": 2,
        "output": 12345,
        "text": "\x01é" * SEGMENT,
        "reasons": {"a": "b" * SEGMENT},
        "tags": ["t"],
    }
    writer.end(slot, json.dumps(long).encode())
    assert ids(reader.open_calls()) == [1]
    (settled,) = map(json.loads, reader.read(10))
    assert (settled["id"], settled["output"], settled["tags"]) == (2, 12345, ["t"])
    assert len(settled["text"]) > 1000


def test_remove_may_be_repeated_and_a_missing_directory_is_empty(tmp_path):
    directory = tmp_path / "1-0"
    directory.mkdir()
    JournalWriter(directory).close()
    (directory / "lock").touch()
    reader = JournalReader(directory)
    reader.read(1)
    reader.remove()
    assert not directory.exists()
    reader.remove()
    assert JournalReader(directory).read(1) == []
    assert JournalReader(directory).open_calls() == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "end", "read", "commit", "restart"]), st.integers(0, 7)),
        max_size=60,
    )
)
def test_any_interleaving_reads_each_record_once(tmp_path_factory, steps):
    directory = tmp_path_factory.mktemp("journal")
    writer, reader = JournalWriter(directory), JournalReader(directory)
    begun, open_slots, settled, got, kept, offset = 0, [], [], [], [], 0
    for step, n in steps:
        if step == "begin":
            open_slots.append((begun, writer.begin(record(begun))))
            begun += 1
        elif step == "end" and open_slots:
            call, slot = open_slots.pop(n % len(open_slots))
            writer.end(slot, record(call, 300_000 * n))
            settled.append(call)
        elif step == "read":
            got += ids(reader.read(n))
        elif step == "commit":
            kept, offset = kept + got, reader.offset
            got = []
            reader.committed(offset)
        elif step == "restart":
            reader.close()
            reader, got = JournalReader(directory, offset), []
    assert kept + got + ids(reader.read(1000)) == settled
    assert sorted(ids(reader.open_calls())) == sorted(call for call, _ in open_slots)
    writer.close()
    reader.remove()


CHILD = """
import json, sys
from collections import deque
from pathlib import Path
from gateway.link.journal import JournalWriter
writer = JournalWriter(Path(sys.argv[1]))
still_open = deque()
for n in range(1 << 40):
    entry = json.dumps({"id": n, "pad": "x" * (n % 700)}).encode()
    still_open.append((writer.begin(entry), entry))
    if len(still_open) > 8:
        writer.end(*still_open.popleft())
    if n == 200:
        print("up", flush=True)
"""


@pytest.mark.parametrize("round_", range(6))
def test_a_writer_killed_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path, round_):
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        reader, settled = JournalReader(tmp_path), []
        while len(settled) < 500 + 3000 * round_:
            settled += ids(reader.read(777))
            reader.committed(reader.offset)
        child.kill()
    while records := reader.read(1000):
        settled += ids(records)
    left = ids(reader.open_calls())
    assert settled == list(range(len(settled)))
    # every call that had begun is settled or open, never both, never neither
    assert sorted(left) == list(range(len(settled), len(settled) + len(left)))
    assert 7 <= len(left) <= 9
