"""`/admin/v1/config`: the configuration that serves, drafts, the history, and the way back."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.control import history
from gateway.control.body import ROLLBACK, TOML
from gateway.control.changes import not_found, stale
from gateway.control.operation import MOST, PAGE, Answer, Ask, Operation
from gateway.control.port import Desk, Wanted
from gateway.core.errors import CallerError
from gateway.core.moment import iso
from gateway.core.records import Deed, KeptRevision
from gateway.settings.faults import ConfigError
from gateway.settings.load import load
from gateway.settings.schema import Settings

_MOST_LOOKED = 500
_ETAG = re.compile(r'(?:W/)?"([0-9A-Za-z_.-]{1,64})"\Z')


def _shown(kept: KeptRevision) -> dict[str, Any]:
    return {
        "n": kept.n,
        "revision": kept.id,
        "at": iso(kept.ts_ms / 1000, "seconds"),
        "actor": kept.actor,
        "note": kept.note,
        "files": sorted(kept.files),
    }


async def _get(ask: Ask) -> Answer:
    files = history.masked(ask.desk.texts(), ask.settings)
    revision, warnings = ask.settings.revision, list(ask.settings.warnings)
    shown = {"revision": revision, "path": ask.settings.path, "files": files, "warnings": warnings}
    return Answer(shown, tag=revision)


async def _validate(ask: Ask) -> Answer:
    faults, warnings = check(ask.values["toml"], ask)
    return Answer({"valid": not faults, "faults": faults, "warnings": warnings})


def check(toml: str, ask: Ask) -> tuple[list[dict[str, Any]], list[str]]:
    """The faults and warnings of a text, as if it stood where the serving one does. Raises `CallerError`.

    No secret is fetched for it, and no command is run.
    """
    if history.marked(toml):  # filling it in would show the secret to whoever may choose the place
        raise CallerError(
            'The text has "***secret:…***" where a literal secret was taken out: write "env:NAME" or '
            '"file:PATH" there, or the secret again.',
            param="toml",
        )
    _no_new_commands([toml], ask.desk)
    root = Path(ask.settings.path) if ask.settings.path else Path.cwd() / "gateway.toml"
    shown = str(root)
    try:
        settings = load(root, os.environ, resolve=False, draft=toml)
    except ConfigError as error:
        faults = [{**asdict(fault), "file": fault.file} for fault in error.faults]
        return [
            {**fault, "file": root.name if fault["file"] == shown else fault["file"]} for fault in faults
        ], []
    return [], [warning.replace(shown, root.name) for warning in settings.warnings]


def _no_new_commands(texts: Iterable[str], desk: Desk) -> None:
    """What this API is sent must not be run: a command stands in the file first, put there by hand."""
    known = set().union(*(_commands(text) for text in desk.texts().values()))
    fresh = set().union(*(_commands(text) for text in texts)) - known
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
    except (ValueError, RecursionError):  # no TOML, or an integer with thousands of digits
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
    faults, _ = check(ask.values["toml"], ask)
    if faults:
        lines = "; ".join(f"{f['file']}:{f['line']}:{f['column']} {f['path']} {f['message']}" for f in faults)
        raise CallerError(f"Nothing is changed: {lines}", code="caller_bad_request", param="toml")
    return await _serve(ask, {ask.settings.path: ask.values["toml"]}, ask.values.get("note") or "")


async def _serve(ask: Ask, files: Mapping[str, str], note: str, gone: tuple[str, ...] = ()) -> Answer:
    actor = ask.operator.actor
    applied = await ask.desk.apply(Wanted(files, actor, note, gone, _expected(ask)))
    detail = {"note": note, **({"why": applied.refused} if applied.refused else {})}
    action = "config.refuse" if applied.refused else "config.apply"
    deed = Deed(actor, action, f"config/{applied.revision}", revision=applied.revision, detail=detail)
    if applied.refused:
        await ask.desk.do(lambda books: books.note([deed]))
        raise CallerError(
            f"The old configuration goes on: {applied.refused}", status=409, code="caller_conflict"
        )
    document: dict[str, Any] = {"revision": applied.revision}
    if applied.aside:
        document["set_aside"] = list(applied.aside)
    return Answer(document, tag=applied.revision, deed=deed)


def _expected(ask: Ask) -> str:
    """The revision that if-match names; "" for any. Raises `CallerError` (412) where it is no revision."""
    if ask.match == "*":
        return ""
    match = _ETAG.match(ask.match)
    if match is None:
        raise stale()
    return match[1]


def written(write: Callable[[], None]) -> None:
    """Have the files written. Raises `CallerError` where they are not to be changed from here."""
    try:
        write()
    except OSError as error:
        raise CallerError(
            f"The configuration can't be written ({error.strerror or error}): change it where it comes from.",
            status=409,
            code="caller_read_only",
        ) from None


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
        other = history.masked(ask.desk.texts(), ask.settings)
    return Answer({"from": kept.id, "to": against, "diff": history.differences(kept.files, other)})


async def _rollback(ask: Ask) -> Answer:
    wanted = ask.values.get("to") or ""
    now = ask.desk.texts()
    if wanted:
        kept = await _kept(ask, wanted)
    else:
        earlier = await ask.desk.do(lambda books: books.revisions(_MOST_LOOKED))
        shown = history.masked(now, ask.settings)
        # A secret that was renewed makes another revision of the same text. Other replicas have other files.
        others = [
            each
            for each in earlier
            if each.id != ask.settings.revision and each.files != shown and ask.settings.path in each.files
        ]
        if not others:
            raise not_found("revision", "before this one")
        kept = others[0]
    _at_home(kept, now, ask.settings)
    files = history.filled(kept.files, ask.settings)
    _no_new_commands(files.values(), ask.desk)
    gone = tuple(path for path in now if path not in files)
    return await _serve(ask, files, ask.values.get("note") or f"back to {kept.id}", gone)


def _at_home(kept: KeptRevision, now: Mapping[str, str], settings: Settings) -> None:
    """Nothing is written but the configuration of this host. Raises `CallerError` (409)."""
    home = Path(settings.path).parent
    strange = [path for path in kept.files if path not in now and not _below(Path(path), home)]
    if settings.path not in kept.files or strange:
        raise CallerError(
            f"That revision had other files ({', '.join(strange or sorted(kept.files))}), which are not of "
            "this gateway's configuration: put them in place by hand.",
            status=409,
            code="caller_conflict",
        )


def _below(path: Path, home: Path) -> bool:
    return path.suffix == ".toml" and path.is_absolute() and path.resolve().is_relative_to(home.resolve())


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
        answer="Applied", keyed=True, alone=True,
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
        body=ROLLBACK, answer="Applied", keyed=True, alone=True,
    ),
)  # fmt: skip
