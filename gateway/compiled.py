"""The hot path as machine code, where it has been compiled; else the same modules as Python.

`penstock compile` has mypyc make one library of the modules of `HOT` and puts it beside the packages of this
environment. It is used as a whole or not at all: only by the interpreter it was made for, and only while
every source it was made from is still the same, byte for byte. Whoever changes one of them runs what stands
there, as Python, until it is compiled again. `PENSTOCK_COMPILED=no` leaves it aside.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_: Any) -> Any:
        """Says something of a class to the compiler, and nothing to Python."""
        return lambda each: each


# What every call runs through. Modules of one library reach each other without Python in between.
HOT = (
    "gateway.core.call",
    "gateway.core.cost",
    "gateway.core.generations",
    "gateway.core.hold",
    "gateway.core.prompt",
    "gateway.core.record",
    "gateway.core.reply",
    "gateway.core.usage",
    "gateway.net.connection",
    "gateway.net.exchange",
    "gateway.net.lines",
    "gateway.net.outbound",
    "gateway.net.pool",
    "gateway.net.wire",
    "gateway.backends.azure",
    "gateway.backends.base.answer",
    "gateway.backends.base.asked",
    "gateway.backends.base.credentials",
    "gateway.backends.base.http",
    "gateway.backends.openai",
    "gateway.stages.forward",
    "gateway.stages.limits.ample",
    "gateway.stages.limits.claim",
    "gateway.stages.limits.form",
    "gateway.stages.limits.growth",
    "gateway.stages.limits.habit",
    "gateway.stages.limits.stage",
    "gateway.stages.limits.terms",
    "gateway.stages.limits.told",
    "gateway.stages.meter",
    "gateway.link.bucket",
    "gateway.link.journal",
    "gateway.link.leases",
    "gateway.link.slots",
    "gateway.link.stock",
    "gateway.pipeline",
    "gateway.front.body",
    "gateway.front.connection",
    "gateway.front.conversation",
    "gateway.front.head",
    "gateway.front.intake",
    "gateway.front.lane",
    "gateway.front.request",
    "gateway.front.turn",
)
LIBRARY = "penstock_hot"
_PACKAGE = Path(__file__).parent
_MANIFEST = "manifest.json"


def folder() -> Path:
    """Where the library of this environment stands, if it has one."""
    return Path(sysconfig.get_path("platlib")) / "penstock_compiled"


def source(module: str, root: Path | None = None) -> Path:
    """The source of a module of ours, or of a copy of ours in `root`."""
    return (root or _PACKAGE.parent).joinpath(*module.split(".")).with_suffix(".py")


def digests(modules: Iterable[str], root: Path | None = None) -> dict[str, str]:
    """SHA-256 of their sources, by module. Raises `OSError`."""
    return {name: hashlib.sha256(source(name, root).read_bytes()).hexdigest() for name in modules}


def made_from(root: Path | None = None) -> list[str]:
    """The modules of `HOT`, and those they import: constants of theirs may be part of the library."""
    found = {__name__, *HOT}
    for name in HOT:
        imported = _imported(ast.parse(source(name, root).read_bytes()))
        found.update(each for each in imported if source(each, root).is_file())
    return sorted(found)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gateway."):
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def write_manifest(place: Path, root: Path | None = None) -> None:
    """Note in a library's folder what it was made from: ours, or the copy in `root` that it was made of."""
    (place / _MANIFEST).write_text(json.dumps(digests(made_from(root), root), indent=1) + "\n")


def reason() -> str:
    """Why the compiled modules are not to be used; "" where they are."""
    if os.environ.get("PENSTOCK_COMPILED", "") == "no":
        return "PENSTOCK_COMPILED=no"
    place = folder()
    try:
        known = json.loads((place / _MANIFEST).read_bytes())
        if not {__name__, *HOT} <= known.keys():
            return "what was compiled can't be read: its manifest is not whole"
        if not (place / f"{LIBRARY}__mypyc{EXTENSION_SUFFIXES[0]}").is_file():
            return "it was compiled for another interpreter"
        changed = [name for name, digest in digests(known).items() if known[name] != digest]
    except FileNotFoundError as error:
        return "it has not been compiled" if error.filename == str(place / _MANIFEST) else f"{error}"
    except (OSError, ValueError, AttributeError) as error:
        return f"what was compiled can't be read: {error}"
    return f"{changed[0]} has changed since it was compiled" if changed else ""


class Finder(MetaPathFinder):
    """Finds the compiled form of the modules of `HOT`, before their sources are found."""

    def __init__(self, place: Path) -> None:
        suffix = EXTENSION_SUFFIXES[0]
        self._files = {name: place.joinpath(*name.split(".")).with_suffix(suffix) for name in HOT}
        library = f"{LIBRARY}__mypyc"
        self._files[library] = place / f"{library}{suffix}"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        file = self._files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file)


def engage() -> str:
    """Have the compiled modules imported where there are any; gives the reason where not."""
    why = reason()
    if not why:
        sys.meta_path.insert(0, Finder(folder()))
    return why
