"""What commands read and print: the configuration, tables, JSON, and why something was refused."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.settings.faults import ConfigError
from gateway.settings.schema import Settings

DEFAULT = Path("gateway.toml")


class Refused(Exception):
    """The command can't be done; the message says why. `status` is the exit status."""

    status = 1


class Faulty(Refused):
    """The configuration has faults."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))
        self.faults = error.faults


class Misused(Refused):
    """The command was called wrongly."""

    status = 2


def config_path(args: Namespace) -> Path | None:
    """The file that -c names, else ./gateway.toml if there is one, else None: no configuration."""
    if args.config is not None:
        return Path(args.config)
    return DEFAULT if DEFAULT.exists() else None


def load(args: Namespace) -> Settings:
    """The settings a command is about, without the need for any secret. Raises `Faulty`."""
    from gateway.settings.load import load as read

    try:
        return read(config_path(args), os.environ, resolve=False)
    except ConfigError as error:
        raise Faulty(error) from None


def refuse(args: Namespace, refused: Refused) -> int:
    """Tell why on stderr, or in JSON on stdout; gives the exit status."""
    if isinstance(refused, Faulty):
        if args.json:
            say_json({"faults": [asdict(fault) for fault in refused.faults]})
        else:
            print(refused, file=sys.stderr)
    elif args.json:
        say_json({"error": str(refused)})
    else:
        print(f"penstock {args.command}: {refused}", file=sys.stderr)
    return refused.status


def say_json(value: Any) -> None:
    """Print a value as indented JSON."""
    from gateway.core.codec import pretty

    print(pretty(value))


def say_table(head: Sequence[str], rows: Sequence[Sequence[object]], numbers: int = 0) -> None:
    """Print aligned columns; the last `numbers` of them to the right."""
    table = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[at]) for row in table) for at in range(len(head))]
    for row in table:
        cells = [
            cell.rjust(width) if at >= len(head) - numbers else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def say_members(document: Mapping[str, Any]) -> None:
    """Print what one thing has, a line for each member; those that say nothing are left out."""
    rows = [(name, cell(value)) for name, value in document.items() if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name.replace('_', ' ').ljust(width)}  {value}")


def cell(value: object) -> str:
    """A value as people read it. What a terminal would obey rather than show is left out."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(cell(each) for each in value)
    if isinstance(value, int | float):
        return f"{value:,}"
    return "".join(c for c in str(value or "") if c.isprintable())


def several(text: str) -> list[str]:
    """What an option lists, by commas."""
    return [piece.strip() for piece in text.split(",") if piece.strip()]
