"""`[tenants.NAME]`: what holds for all keys and tokens of a tenant, of its teams and of its users."""

from __future__ import annotations

from typing import Any

from gateway.core.group import Capture, Member, Tenant
from gateway.settings.callers import GLOBS, LABEL, no_empty_lists
from gateway.settings.kinds import INVALID, Flag, Number, Reading, Text
from gateway.settings.network import NETWORKS
from gateway.settings.quantities import Duration, Size
from gateway.settings.tables import Field, Many, Named, Table
from gateway.settings.tree import Node

_MOST_MEMBERS = 10_000

_RULES = {
    "description": Field(Text(most=256), "for those who read this"),
    "models": Field(GLOBS, "models its members may call, as globs; absent: all"),
    "endpoints": Field(GLOBS, 'endpoints its members may call, as globs ("chat/*"); absent: all'),
    "networks": Field(
        NETWORKS, 'where its members must call from, as ranges ("10.0.0.0/8"); absent: anywhere'
    ),
    "tags": Field(Many(LABEL, most=16), "noted with each call of its members"),
    "disabled": Field(Flag(), "refuse all its members"),
}

CAPTURE = Table(
    "capture",
    Capture,
    {
        "sample": Field(Number(most=1), "share of the calls whose texts are kept; 0.0: none"),
        "redact": Field(
            Many(Text(choices=Capture().redact)),
            "what is replaced before anything is written; absent: all of it",
        ),
        "most": Field(Size(most=256 << 10, example="16KiB"), "bytes kept of a prompt, and of an answer"),
        "keep": Field(Duration(least=60.0, example="7d"), "kept texts are removed after"),
    },
)


class _Members(Named):
    """Teams or users by name, bounded."""

    def read(self, node: Node, reading: Reading) -> Any:
        if isinstance(node.value, dict) and len(node.value) > _MOST_MEMBERS:
            reading.fault(node, f"must hold at most {_MOST_MEMBERS} entries", at_key=True)
            return INVALID
        return super().read(node, reading)


def _tenant(values: dict[str, Any], node: Node, reading: Reading) -> Tenant:
    no_empty_lists(node, reading)
    for kind in ("teams", "users"):
        members = node.value[kind].value if kind in node.value else {}
        for member in members.values() if isinstance(members, dict) else ():
            if isinstance(member.value, dict):
                no_empty_lists(member, reading)
    return Tenant(str(node.path[-1]), **values)


TENANTS = _Members(
    Table(
        "tenant",
        Tenant,
        {
            **_RULES,
            "teams": Field(_Members(Table("team", Member, _RULES), LABEL), "the same for each of its teams"),
            "users": Field(_Members(Table("user", Member, _RULES), LABEL), "the same for each of its users"),
            "capture": Field(CAPTURE, "whether prompts and answers are kept; absent: they are not"),
        },
        finish=_tenant,
    ),
    LABEL,
)
