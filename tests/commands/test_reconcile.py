"""`penstock usage reconcile`: what is said to each tests/golden/reconcile/NAME.csv stands in NAME.txt."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import main
from gateway.commands.export import FIGURES, Unreadable, parse
from gateway.commands.reconcile import compare
from gateway.stores.sqlite import SqliteLedger

GOLDEN = Path(__file__).parents[1] / "golden" / "reconcile"
NAMES = sorted(file.stem for file in GOLDEN.glob("*.csv"))


def call(day: int, target: str, **more: Any) -> dict[str, Any]:
    ts = int(datetime(2026, 1, day, 10, tzinfo=UTC).timestamp() * 1000)
    return {
        "ts": ts, "model": "any", "target": target, "backend": "openai", "outcome": "ok", "input": 100,
        "output": 50, "cost_micros": 45, "usage_source": "provider", **more,
    }  # fmt: skip


CALLS = (
    call(1, "gpt-4o-mini"),
    call(1, "gpt-4o-mini"),
    call(1, "gpt-4o-mini", input=105, cached_input=5),
    call(1, "gpt-4o-mini", outcome="refused", input=0, output=0, cost_micros=0, usage_source="none"),
    call(2, "gpt-4o-mini", outcome="abandoned", input=0, output=0, cost_micros=0, usage_source="unknown"),
    call(3, "gpt-4o-2024-08-06", input=1000, output=500, cost_micros=7500),
    call(4, "claude-sonnet-4", backend="anthropic", input=70, cache_write=20, cached_input=10, output=40),
)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    ledger = SqliteLedger(tmp_path / "data" / "ledger.sqlite")
    ledger.open()
    ledger.commit(CALLS, {})
    ledger.close()
    for name in NAMES:
        (tmp_path / f"{name}.csv").write_bytes((GOLDEN / f"{name}.csv").read_bytes())
    yield tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["usage", "reconcile", *words])
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize("name", NAMES)
def test_an_export_is_compared_word_for_word(
    house: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = "anthropic" if name == "anthropic" else "openai"
    words = ["--map", "Cost (USD)=usd"] if name == "faulty" else []
    status, said = told(capsys, f"{name}.csv", "--backend", backend, *words)
    assert f"{said}exit {status}\n" == (GOLDEN / f"{name}.txt").read_text()


def test_the_answer_in_json_has_every_figure(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = told(capsys, "openai-usage.csv", "--backend", "openai", "--json")
    answer = json.loads(said)
    (drift,) = [
        each for each in answer["drifts"] if each["day"] == "2026-01-01" and each["figure"] == "input"
    ]
    assert (drift["provider"], drift["ledger"], drift["drift"], drift["above"]) == (310, 310, 0, False)
    assert status == 1 and answer["unknown_calls"] == 1  # a call that died is none of the provider's
    assert {each["figure"] for each in answer["totals"]} == {"requests", "input", "output"}


def test_what_is_within_the_tolerance_is_no_drift(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (house / "close.csv").write_text("day,model,input\n2026-01-01,gpt-4o-mini,312\n")
    assert told(capsys, "close.csv")[0] == 0
    assert told(capsys, "close.csv", "--tolerance", "0.5%")[0] == 1


@pytest.mark.parametrize(
    "words, message, status",
    [
        ((), "name the provider's export", 2),
        (("nowhere.csv",), "nowhere.csv: no such file", 1),
        (("empty.csv",), "its first line is empty; there the names of the columns are to be", 1),
        (("other.csv",), "no column is known to hold any of requests, input", 1),
        (("close.csv", "--map", "colour=model"), "there is no column 'colour'; it has: day, model", 1),
        (("close.csv", "--map", "day=colour"), "fields are day, model", 2),
        (("close.csv", "--tolerance", "much"), "write percent", 2),
        (("quoted.csv",), "quoted.csv: line ", 1),
        (("twice.csv",), "the column 'Input' stands there twice", 1),
        (("binary.csv",), "not UTF-8", 1),
    ],
)
def test_what_can_not_be_compared_says_what_would_be_right(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str, status: int
) -> None:
    (house / "close.csv").write_text("day,model,input\n2026-01-01,gpt-4o-mini,312\n")
    (house / "empty.csv").write_text("")
    (house / "other.csv").write_text("day,model,colour\n2026-01-01,gpt-4o-mini,red\n")
    (house / "quoted.csv").write_text('day,model,input\n2026-01-01,"gpt-4o"mini,3\n')
    (house / "twice.csv").write_text("day,model,Input,input\n2026-01-01,gpt-4o-mini,3,4\n")
    (house / "binary.csv").write_bytes(b"day,model,input\n\xff\xfe\n")
    found, said = told(capsys, *words)
    assert message in said and found == status
    assert "error" in json.loads(told(capsys, *words, "--json")[1])


def test_a_gateway_that_never_ran_has_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "close.csv").write_text("day,model,input\n2026-01-01,gpt-4o-mini,312\n")
    status, said = told(capsys, "close.csv")
    assert status == 1 and "-312" in said and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "cell",
    ["2026-01-31", "1769817600", "1769817600000", "2026-01-31T23:59:59Z", "2026-02-01T05:00:00+06:00",
     "2026-01-31 10:30:45", "2026-01-31 10:30:45 UTC"],
)  # fmt: skip
def test_a_day_is_that_of_utc(cell: str) -> None:
    export = parse(io.StringIO(f"date,model,requests\n{cell},m,1\n"), {})
    assert list(export.sums) == [("2026-01-31", "m")] and not export.faults


def test_a_file_from_a_spreadsheet_is_read_too() -> None:
    export = parse(io.StringIO("Date\tModel\tRequests\n2026-01-31\tm\t1,234\n"), {})
    assert export.sums == {("2026-01-31", "m"): {"requests": 1234}}


def test_a_comma_after_a_zero_parts_no_thousands() -> None:
    export = parse(io.StringIO("day;model;cost\n2026-01-31;m;0,024\n2026-01-31;m;1,024.5\n"), {})
    assert export.sums == {("2026-01-31", "m"): {"cost_micros": 1_024_500_000}}
    assert export.faults == ["line 2: the amount is '0,024', not a number"]


@pytest.mark.parametrize("cell", ["9999-12-31", "0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00"])
def test_a_day_beyond_all_dates_is_a_row_that_is_not_understood(
    house: Path, capsys: pytest.CaptureFixture[str], cell: str
) -> None:
    (house / "far.csv").write_text(f"day,model,input\n{cell},gpt-4o-mini,312\n0001-01-01,gpt-4o-mini,1\n")
    status, said = told(capsys, "far.csv")
    assert status == 1 and f"far.csv: line 2: the day is '{cell}', not a date" in said


def test_a_file_of_nonsense_names_some_rows_and_counts_the_rest() -> None:
    rows = "".join("never,m,1\n" for _ in range(1000))
    export = parse(io.StringIO(f"date,model,requests\n{rows}"), {})
    assert export.bad == 1000 and len(export.faults) == 100
    assert export.faults[0] == "line 2: the day is 'never', not a date such as 2026-11-01"


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for head in ("", "day,model,input,cost,currency\n"):
        try:
            export = parse(io.StringIO(head + text), {})
        except Unreadable:
            continue
        assert all(isinstance(figure, int) for sums in export.sums.values() for figure in sums.values())


_days = st.integers(0, 3).map(lambda n: (date(2026, 1, 1) + timedelta(n)).isoformat())
_models = st.sampled_from(["a", "a-2024-01-02", "b-20240102", "c", "c-2024-01-02"])
_side = st.dictionaries(
    st.tuples(_days, _models),
    st.fixed_dictionaries({name: st.integers(0, 99) for name in FIGURES}),
    max_size=8,
)


@given(_side, _side)
def test_drifts_add_up_to_both_sides(theirs: dict[Any, Any], ours: dict[Any, Any]) -> None:
    drifts = compare(theirs, ours, FIGURES)
    for name in FIGURES:
        mine = [each for each in drifts if each.figure == name]
        assert sum(each.provider for each in mine) == sum(sums[name] for sums in theirs.values())
        assert sum(each.ledger for each in mine) == sum(sums[name] for sums in ours.values())
    assert len({(each.day, each.model, each.figure) for each in drifts}) == len(drifts)


@given(_side)
def test_a_side_compared_with_itself_has_no_drift(side: dict[Any, Any]) -> None:
    assert not any(each.above(0.0) for each in compare(side, side, FIGURES))
