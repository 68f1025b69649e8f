"""A request as the options of `penstock explain` suppose it: what it is, who sends it, from where, when."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import cast

from gateway.commands.ledger import opened
from gateway.commands.moment import parse_moment
from gateway.commands.output import Misused, Refused
from gateway.core.call import Call
from gateway.core.group import groups_of, tenant_of
from gateway.core.principal import ANYONE, KeyEntry, Principal
from gateway.core.records import TENANT, Records
from gateway.core.rights import address_of
from gateway.front import body
from gateway.front.request import parse
from gateway.settings.faults import quote
from gateway.settings.schema import Settings


def key_of(args: Namespace, settings: Settings) -> KeyEntry:
    """The key it comes with, and what the options put in place of its own."""
    return _as_if(args, _key(args.key, settings))


def _read(name: str, settings: Settings) -> bytes:
    most = settings.server.bounds.body
    try:
        if name == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with Path(name).open("rb") as stream:
                data = stream.read(most + 1)
    except OSError as error:
        raise Refused(f"{name} can't be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > most:
        raise Refused(str(body.too_large(most)))
    return data


def _key(name: str | None, settings: Settings) -> KeyEntry:
    if name is None:
        return ANYONE
    with opened(settings) as ledger:
        known: list[KeyEntry] = [*settings.keys, *(ledger.keys() if ledger else ())]
    for key in known:
        if name in (key.name, key.id):
            return key
    raise Refused(f"there is no key named {name}; penstock keys list shows them")


def _as_if(args: Namespace, key: KeyEntry) -> KeyEntry:
    """The key with what the options put in place of its own."""
    given = {name: value for name in ("tenant", "team", "user") if (value := getattr(args, name)) is not None}
    if args.roles is not None:
        given["roles"] = tuple(role.strip() for role in args.roles.split(",") if role.strip())
    return replace(key, **given) if given else key


def _principal(key: KeyEntry, settings: Settings) -> Principal:
    """The caller in its groups; a tenant that is not in the file may be in the ledger."""
    tenants = dict(settings.tenants)
    if key.tenant and key.tenant not in tenants:
        with opened(settings) as ledger:
            entity = cast(Records, ledger).entity(TENANT, key.tenant) if ledger else None
        if entity is not None and not entity.deleted:
            tenants[key.tenant] = tenant_of(entity.document)
    return Principal(key, groups_of(tenants, key.tenant, key.team, key.user))


def call_of(args: Namespace, key: KeyEntry, settings: Settings) -> Call:
    """The request as the front would make it. Raises `Refused`, and `CallerError` where the front would."""
    data = _read(args.request, settings)
    lines = [b"host: localhost"]
    for line in [*(args.header or ()), *([f"x-penstock-tags: {args.tags}"] if args.tags else ())]:
        if ":" not in line or not line.isascii() or not line.isprintable():
            raise Misused(f"--header: {quote(line)} is not NAME:VALUE in printable ASCII")
        lines.append(line.encode())
    if not any(line.lower().startswith(b"content-type:") for line in lines):
        lines.append(b"content-type: application/json")
    if args.client and address_of(args.client) is None:
        raise Misused(f"--client: {quote(args.client)} is no IP address")
    path = f"/{args.endpoint.lstrip('/')}".encode("ascii", "replace")
    head = parse(b"\r\n".join((b"POST %b HTTP/1.1" % path, *lines)))
    call = Call(head.method, head.path, head.endpoint, head.headers, data)
    call.principal = _principal(key, settings)
    call.query = head.query
    call.client = args.client or ""
    call.wall = parse_moment("--at", args.at).timestamp() if args.at else time.time()
    return call
