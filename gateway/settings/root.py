"""The whole file: every section there is."""

from __future__ import annotations

from gateway.settings.amounts import LIMIT
from gateway.settings.callers import KEY
from gateway.settings.kinds import Text
from gateway.settings.naming import MODELS, PRICES
from gateway.settings.plugins import PLUGIN
from gateway.settings.policies import ACCESS, POLICY
from gateway.settings.process import AUTH, OBSERVE, SERVER, STATE
from gateway.settings.sealed import SECRETS
from gateway.settings.tables import Field, Later, Many, Table
from gateway.settings.tenants import TENANTS
from gateway.settings.upstream import BACKENDS

# `include` is taken out while files are read; it stands here for the schema and for "did you mean".
_INCLUDE = Many(Text(meaning='a file or glob, "policies/*.toml"'), least=1)

ROOT = Table(
    "the file",
    dict,
    {
        "include": Field(_INCLUDE, "files merged into this one, as names or globs relative to it"),
        "server": Field(SERVER, "ports, processes, bounds", fill=True),
        "state": Field(STATE, "where state lives", fill=True),
        "auth": Field(AUTH, "who may call", fill=True),
        "observe": Field(OBSERVE, "logs", fill=True),
        "keys": Field(Many(KEY), "keys from the file; others are made by `penstock keys add`"),
        "tenants": Field(TENANTS, "what holds for all members of a tenant, its teams and its users"),
        "backends": Field(BACKENDS, "whom to ask; absent: found in the environment"),
        "models": Field(MODELS, "what callers ask for, and who answers"),
        "prices": Field(PRICES, "USD per million tokens; replaces the bundled price of that model"),
        "limits": Field(Many(LIMIT), "how much, for whom"),
        "access": Field(ACCESS, "what holds where no policy says anything", fill=True),
        "policies": Field(Many(POLICY), "who may do what, with which settings"),
        "secrets": Field(SECRETS, "how secrets are kept fresh"),
        "plugins": Field(Many(PLUGIN, most=100), "stages from elsewhere"),
        **{
            name: Field(Later(), "a later version")
            for name in ("guards", "cache", "routing", "rollouts", "evals", "engine")
        },
    },
)
