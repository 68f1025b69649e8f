"""What only shows when sections are seen together."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from gateway.core.limit import LimitRule
from gateway.core.principal import KeyEntry
from gateway.settings.address import Address, parse
from gateway.settings.faults import guess, quote
from gateway.settings.kinds import Reading
from gateway.settings.policies import check as check_policies
from gateway.settings.schema import Settings
from gateway.settings.tables import repeated
from gateway.settings.tree import Node


def check(tree: Node, settings: Settings, reading: Reading) -> None:
    """Note every fault between sections. Values that were faulty themselves are left alone."""
    _targets(tree, set(settings.backends), reading)
    _keys(tree, settings.keys, reading)
    _limits(tree, settings.limits, reading)
    _windows(tree, settings, reading)
    check_policies(tree, settings.policies, settings.access, set(settings.backends), reading)
    _ports(tree, settings, reading)
    _circles(tree, settings, reading)


def _entries(tree: Node, name: str) -> list[Node]:
    node = tree.child(name)
    return node.value if node is not None and isinstance(node.value, list) else []


def _tables(node: Node | None) -> dict[str, Node]:
    return node.value if node is not None and isinstance(node.value, dict) else {}


def _targets(tree: Node, discovered: set[str], reading: Reading) -> None:
    """Each target names a backend that exists."""
    stated = tree.child("backends")
    known: dict[str, Node | None] = dict(_tables(stated)) if stated else dict.fromkeys(discovered)
    for rule in _tables(tree.child("models")).values():
        for part in ("targets", "fallback"):
            node = rule.child(part)
            for target in node.value if node and isinstance(node.value, list) else []:
                _target(target, known, reading)


def _target(target: Node, known: dict[str, Node | None], reading: Reading) -> None:
    item = target.child("backend")
    if item is None or not isinstance(item.value, str) or item.value in known:
        return
    near = guess(item.value, known)
    told = f"no backend named {quote(item.value)}"
    if near:
        there = known[near]
        told += f"; did you mean {quote(near)}?" + (f"  (defined {there.where(item)})" if there else "")
    else:
        told += f"; there are: {', '.join(sorted(known)) or 'none'}"
    reading.fault(item, told)


def _keys(tree: Node, keys: Iterable[KeyEntry], reading: Reading) -> None:
    """Names identify keys, so each is used once; so is each secret."""
    named = [(entry, entry.child("name")) for entry in _entries(tree, "keys")]
    names = [(node.value, node) for _, node in named if node is not None and isinstance(node.value, str)]
    repeated(names, "duplicate name", reading)
    nodes = {node.value: entry for entry, node in named if node is not None and isinstance(node.value, str)}
    first: dict[bytes, Node] = {}
    for key in keys:
        node = nodes[key.name]
        other = first.setdefault(key.digest, node)
        if other is not node:
            item = node.child("key") or node.child("hash") or node
            reading.fault(item, f"the same secret as of the key {other.where(node)}")


def _limits(tree: Node, limits: Iterable[LimitRule], reading: Reading) -> None:
    """Two limits that differ in nothing but the amount, of which only the smaller could ever matter; or
    that have one name."""
    if len({rule.id for rule in limits}) == len(tuple(limits)):
        return
    from gateway.settings.amounts import LIMIT

    first: dict[str, Node] = {}
    for node in _entries(tree, "limits"):
        rule = LIMIT.read(node, Reading({}))
        if isinstance(rule, LimitRule):
            other = first.setdefault(rule.id, node)
            name = node.child("name")
            if other is not node and name is not None:
                told = f"duplicate name {quote(rule.id)}; the first is the limit {other.where(name)}"
                reading.fault(name, told)
            elif other is not node:
                reading.fault(node, f"counts the same as the limit {other.where(node)}", at_key=True)


def _windows(tree: Node, settings: Settings, reading: Reading) -> None:
    """No window is longer than the sums it is read back from after a restart are kept."""
    kept = settings.state.keep.days
    if not kept or all([rule.seconds <= kept for rule in settings.limits]):
        return
    from gateway.settings.amounts import LIMIT

    for node in _entries(tree, "limits"):
        rule, per = LIMIT.read(node, Reading({})), node.child("per")
        if isinstance(rule, LimitRule) and per is not None and rule.seconds > kept:
            told = f"longer than sums are kept (state.keep.days = {kept / 86_400:g}d), from which a window"
            days = -int(-rule.seconds // 86_400)
            reading.fault(per, f'{told} is read back after a restart; let days be at least "{days}d"')


def _ports(tree: Node, settings: Settings, reading: Reading) -> None:
    server = tree.child("server") or tree
    listen, admin = parse(settings.server.listen), parse(settings.server.admin)
    if listen.meets(admin):
        told = f"the control plane never shares the data port {quote(settings.server.listen)}"
        reading.fault(server.child("admin") or server.child("listen") or server, told)
    if settings.auth.mode == "open" and not listen.loopback and not settings.auth.allow_open:
        auth = tree.child("auth") or tree
        told = f"anyone who reaches {settings.server.listen} could spend your money; listen on 127.0.0.1, "
        reading.fault(auth.child("mode") or auth, told + 'use mode = "keys", or set allow_open = true')


def _circles(tree: Node, settings: Settings, reading: Reading) -> None:
    """A backend must not be this gateway itself."""
    listen = parse(settings.server.listen)
    for name, backend in settings.backends.items():
        if not backend.base_url or listen.path:
            continue
        parts = urlsplit(backend.base_url)
        there = Address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        near = there.loopback and (listen.loopback or listen.everywhere)
        if there.port == listen.port and (near or there.host == listen.host):
            stated = _tables(tree.child("backends")).get(name)
            reading.fault(
                (stated.child("base_url") if stated else None) or tree,
                f"{backend.base_url} is this gateway itself: calls would go in a circle",
            )
