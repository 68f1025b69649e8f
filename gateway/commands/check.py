"""`penstock check`: everything that is wrong with the configuration, at once."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from dataclasses import asdict

from gateway.commands.output import config_path, say_json
from gateway.registry import amiss
from gateway.settings.faults import ConfigError
from gateway.settings.load import load
from gateway.settings.schema import Settings


def run(args: Namespace) -> int:
    """0 when the configuration is valid, 1 when it is not."""
    if args.schema:
        from gateway.settings.jsonschema import schema

        say_json(schema())
        return 0
    path = config_path(args)
    try:
        settings = load(path, os.environ, amiss=amiss)
    except ConfigError as error:
        if args.json:
            say_json({"valid": False, "faults": [asdict(fault) for fault in error.faults]})
        else:
            print(error)
        return 1
    if args.json:
        say_json({"valid": True, "faults": [], "warnings": settings.warnings, "revision": settings.revision})
    else:
        _tell(str(path) if path else "no file", settings)
    return 0


def _tell(name: str, settings: Settings) -> None:
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    parts = {"backends": settings.backends, "model names": settings.models, "limits": settings.limits}
    counts = [f"{len(part)} {what if len(part) != 1 else what[:-1]}" for what, part in parts.items()]
    told = ", ".join(counts)
    print(f"{name}: valid, revision {settings.revision}  ({told})")
