from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.core.codec import dumps, loads
from gateway.settings.jsonschema import schema

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "config"
CHECKER = jsonschema.Draft202012Validator(schema(), format_checker=jsonschema.FormatChecker())

# What a schema of one file sees: not what depends on the environment, files or other sections.
SEEN = (
    *("unknown-", "later-", "type-", "unit-", "duration-negative", "number-out", "workers-", "auth-mode"),
    *("address-malformed", "key-and-hash", "key-neither", "key-bad-name", "key-bad-hash", "key-empty-glob"),
    *("secret-none", "backend-kind", "backend-bad-urls", "backend-bad-name", "backend-credential"),
    *("model-no-targets", "model-target-without", "model-empty-name", "limit-counts", "limit-without"),
    *("limit-concurrent", "limit-bad-per", "limit-bad-mode", "plugin-bad", "include-bad"),
)


def plain(value: Any) -> Any:
    """TOML as JSON: dates become text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else value


def document(file: Path) -> Any:
    """A TOML file as a JSON document."""
    return plain(tomllib.loads(file.read_text()))


def test_the_schema_is_itself_valid_json() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert loads(dumps(schema())) == schema()


@pytest.mark.parametrize(
    "file", [ROOT / "gateway.toml", *sorted(GOLDEN.glob("valid-*.toml"))], ids=lambda file: file.stem
)
def test_valid_files_satisfy_the_schema(file: Path) -> None:
    CHECKER.validate(document(file))


@pytest.mark.parametrize(
    "file",
    [file for file in sorted(GOLDEN.glob("*.toml")) if file.stem.startswith(SEEN)],
    ids=lambda file: file.stem,
)
def test_faulty_files_do_not(file: Path) -> None:
    assert not CHECKER.is_valid(document(file))


def test_defaults_are_shown_as_they_are_written() -> None:
    server = schema()["properties"]["server"]["properties"]
    assert server["listen"]["default"] == "127.0.0.1:8080" and server["workers"]["default"] == 1
    bounds = server["bounds"]["properties"]
    assert {name: bound["default"] for name, bound in bounds.items()} == {
        "body": "32MiB",
        "headers": "32KiB",
        "header_time": "10s",
        "body_time": "60s",
        "idle": "75s",
        "connections": 10000,
        "drain": "600s",
        "memory": "512MiB",
    }


def test_every_key_is_described() -> None:
    def walk(shape: dict[str, Any]) -> None:
        for entry in shape.get("properties", {}).values():
            assert entry["description"]
            walk(entry)

    walk(schema())
