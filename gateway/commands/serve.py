"""`penstock serve`: run the gateway."""

from __future__ import annotations

import os
from argparse import Namespace

from gateway.commands.output import Faulty, Misused, Refused, config_path, refuse
from gateway.settings import address
from gateway.settings.faults import ConfigError
from gateway.settings.kinds import Wrong
from gateway.settings.load import load


def run(args: Namespace) -> int:
    """Runs until it is told to stop."""
    try:
        _override(args)
        if args.json:
            load(config_path(args), os.environ)
    except ConfigError as error:
        return refuse(args, Faulty(error))
    except Refused as refused:
        return refuse(args, refused)
    from gateway.supervisor.main import serve

    return serve(config_path(args))


def _override(args: Namespace) -> None:
    """Options win over the file, also when it is loaded again: they live on as environment variables."""
    for option in ("listen", "admin"):
        value = getattr(args, option)
        if value:
            try:
                os.environ[f"PENSTOCK_{option.upper()}"] = str(address.parse(value))
            except Wrong as wrong:
                raise Misused(f"--{option}: {wrong}") from None
    if args.workers:
        if args.workers != "auto" and not (args.workers.isdecimal() and 1 <= int(args.workers) <= 256):
            raise Misused('--workers: must be a number of processes from 1 to 256, or "auto"')
        os.environ["PENSTOCK_WORKERS"] = args.workers
