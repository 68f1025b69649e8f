"""`/admin/v1/config`: the configuration that serves, drafts, the history, and the way back."""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.control import history
from gateway.control.body import ROLLBACK, TOML
from gateway.control.changes import not_found
from gateway.control.moment import iso
from gateway.control.operation import MOST, PAGE, Answer, Ask, Operation
from gateway.core.errors import CallerError
from gateway.core.records import KeptRevision
from gateway.settings.faults import ConfigError
from gateway.settings.load import load
from gateway.settings.schema import Settings

_MOST_LOOKED = 500


def _shown(kept: KeptRevision) -> dict[str, Any]:
    return {
        "n": kept.n,
        "revision": kept.id,
        "at": iso(kept.ts_ms / 1000),
        "actor": kept.actor,
        "note": kept.note,
        "files": sorted(kept.files),
    }


async def _get(ask: Ask) -> Answer:
    files = history.masked(history.texts(ask.settings), ask.settings)
    warnings = list(ask.settings.warnings)
    return Answer({"revision": ask.settings.revision, "files": files, "warnings": warnings})


async def _validate(ask: Ask) -> Answer:
    faults, warnings = check(ask.values["toml"], ask.settings)
    return Answer({"valid": not faults, "faults": faults, "warnings": warnings})


def check(toml: str, settings: Settings) -> tuple[list[dict[str, Any]], list[str]]:
    """The faults and warnings of a text, as if it stood where the serving one does. Raises `CallerError`.

    No secret is fetched for it, and no command is run.
    """
    if history.marked(toml):  # filling it in would show the secret to whoever may choose the place
        raise CallerError(
            'The text has "***sha256:…***" where a literal secret was taken out: write "env:NAME" or '
            '"file:PATH" there, or the secret again.',
            param="toml",
        )
    _no_new_commands(toml, settings)
    root = Path(settings.path) if settings.path else Path.cwd() / "gateway.toml"
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".toml", prefix=".draft-", dir=root.parent) as draft:
            draft.write(toml)
            draft.flush()
            return _checked(Path(draft.name), root.name)
    except OSError as error:
        raise CallerError(
            f"A draft can't be written beside {root}: {error.strerror}.", status=409, code="caller_read_only"
        ) from None


def _checked(draft: Path, name: str) -> tuple[list[dict[str, Any]], list[str]]:
    try:
        settings = load(draft, os.environ, resolve=False)
    except ConfigError as error:
        faults = [{**asdict(fault), "file": fault.file} for fault in error.faults]
        for fault in faults:
            fault["file"] = name if Path(fault["file"]).name == draft.name else fault["file"]
        return faults, []
    return [], [warning.replace(str(draft), name).replace(draft.name, name) for warning in settings.warnings]


def _no_new_commands(toml: str, settings: Settings) -> None:
    """What this API is sent must not be run: a command stands in the file first, put there by hand."""
    known = set().union(*(_commands(text) for text in history.texts(settings).values()))
    fresh = _commands(toml) - known
    if fresh:
        raise CallerError(
            'A secret from a new command ("exec:…") can\'t come through this API: write it into the file.',
            status=403,
            code="policy_denied",
            param="toml",
        )


def _commands(toml: str) -> set[str]:
    try:
        return set(_texts(tomllib.loads(toml)))
    except (tomllib.TOMLDecodeError, RecursionError):
        return set()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif isinstance(value, str) and value.startswith("exec:"):
        yield value


async def _apply(ask: Ask) -> Answer:
    if not ask.settings.path:
        raise CallerError(
            "The gateway runs without a file; start it with -c gateway.toml to change it here.",
            status=409,
            code="caller_read_only",
        )
    faults, _ = check(ask.values["toml"], ask.settings)
    if faults:
        lines = "; ".join(f"{f['file']}:{f['line']}:{f['column']} {f['path']} {f['message']}" for f in faults)
        raise CallerError(f"Nothing is changed: {lines}", code="caller_bad_request", param="toml")
    return await _serve(ask, {ask.settings.path: ask.values["toml"]}, ask.values.get("note") or "")


async def _serve(ask: Ask, files: Mapping[str, str], note: str) -> Answer:
    applied = await ask.desk.apply(files, ask.operator.actor, note)
    if applied.refused:
        raise CallerError(
            f"The old configuration goes on: {applied.refused}", status=409, code="caller_conflict"
        )
    return Answer({"revision": applied.revision})


async def _history(ask: Ask) -> Answer:
    most = ask.whole("limit", PAGE, 1, MOST)
    before = ask.whole("after", 0, 0, 1 << 53)
    kept = await ask.desk.do(lambda books: books.revisions(most + 1, before))
    following = str(kept[most - 1].n) if len(kept) > most else None
    return Answer({"data": [_shown(each) for each in kept[:most]], "next": following})


async def _kept(ask: Ask, wanted: str) -> KeptRevision:
    """By its revision (the newest of that name) or its number in the history."""
    kept = await ask.desk.do(lambda books: books.revisions(_MOST_LOOKED))
    for each in kept:
        if wanted in (each.id, str(each.n)):
            return each
    raise not_found("revision", wanted)


async def _revision(ask: Ask) -> Answer:
    kept = await _kept(ask, ask.path["revision"])
    return Answer({**_shown(kept), "files": dict(kept.files)})


async def _diff(ask: Ask) -> Answer:
    kept = await _kept(ask, ask.path["revision"])
    against = ask.query.get("against", "")
    if against:
        other: Mapping[str, str] = (await _kept(ask, against)).files
    else:
        against = ask.settings.revision
        other = history.masked(history.texts(ask.settings), ask.settings)
    return Answer({"from": kept.id, "to": against, "diff": history.differences(kept.files, other)})


async def _rollback(ask: Ask) -> Answer:
    wanted = ask.values.get("to") or ""
    if wanted:
        kept = await _kept(ask, wanted)
    else:
        earlier = await ask.desk.do(lambda books: books.revisions(_MOST_LOOKED))
        now = history.masked(history.texts(ask.settings), ask.settings)
        # A secret that was renewed makes another revision of the same text.
        others = [each for each in earlier if each.id != ask.settings.revision and each.files != now]
        if not others:
            raise not_found("revision", "before this one")
        kept = others[0]
    files = history.filled(kept.files, ask.settings)
    return await _serve(ask, files, ask.values.get("note") or f"back to {kept.id}")


_PAGES = {"limit": f"revisions of a page, 1 to {MOST}", "after": "the `next` of the page before"}
_DRAFT = {"toml": '[models."*"]\ntargets = [ { backend = "main" } ]\n'}

OPERATIONS = (
    Operation("GET", "/config", "config.read", "The configuration that serves, without secrets", _get),
    Operation(
        "POST", "/config/validate", "config.write", "The faults of a draft; changes nothing", _validate,
        body=TOML, example=_DRAFT, answer="Checked",
    ),
    Operation(
        "POST", "/config/apply", "config.write", "Write the file and serve it", _apply, body=TOML,
        answer="Applied",
    ),
    Operation(
        "GET", "/config/history", "config.read", "Revisions that served, newest first", _history,
        query=_PAGES, answer="HistoryPage",
    ),
    Operation("GET", "/config/history/{revision}", "config.read", "One of them, with its files", _revision),
    Operation(
        "GET", "/config/history/{revision}/diff", "config.read", "What has changed since", _diff,
        query={"against": "another revision; absent: the one that serves"},
    ),
    Operation(
        "POST", "/config/rollback", "config.write", "Serve an earlier revision again", _rollback,
        body=ROLLBACK, answer="Applied",
    ),
)  # fmt: skip
