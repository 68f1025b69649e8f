"""A configuration as a document: its pipeline and all it works with."""

from __future__ import annotations

from typing import Any

from gateway.commands.output import Refused
from gateway.core.limit import MICROS, UNITS, LimitRule
from gateway.core.notice import Listener
from gateway.core.policy import Policy
from gateway.core.ports import Stage
from gateway.core.route import ModelRule, Target
from gateway.settings.process import BOUNDS
from gateway.settings.quantities import Window
from gateway.settings.schema import BackendSettings, Settings

VERBS = ("open", "admit", "emit", "settle", "close")


def describe(settings: Settings) -> dict[str, Any]:
    """Everything as a JSON document; secrets only by where they come from."""
    server = settings.server
    return {
        "revision": settings.revision,
        "file": settings.path or None,
        "server": {
            "listen": server.listen,
            "admin": server.admin,
            "workers": server.workers,
            "data_dir": server.data_dir,
            "tls": server.tls is not None,
        },
        "auth": settings.auth.mode,
        "stages": stages(settings),
        "backends": [_backend(backend) for backend in settings.backends.values()],
        "models": [_model(rule) for rule in settings.models],
        "limits": [limit(rule) for rule in settings.limits],
        "access": {"default": settings.access.default, "classifications": settings.access.classifications},
        "policies": [policy(each) for each in settings.policies],
        "keys": [key.name for key in settings.keys],
        "bounds": {
            name: entry.kind.show(getattr(server.bounds, name)) for name, entry in BOUNDS.fields.items()
        },
        "prices": len(settings.prices),
        "warnings": list(settings.warnings),
    }


def stages(settings: Settings) -> list[dict[str, Any]]:
    """The stages in their order, each with the verbs it takes part in. Raises `Refused`."""
    from gateway import registry

    idle = () if settings.policies or settings.access.default == "deny" else ("policy",)
    built = [{"name": name, "use": use} for name, use in registry.STAGES if name not in idle]
    at = next((at for at, stage in enumerate(built) if stage["name"] == "forward"), len(built))
    uses = [use for use, _ in settings.plugins if _is_stage(use)]
    built[at:at] = [{"name": use.partition(":")[2].lower(), "use": use} for use in uses]
    return [stage | {"verbs": _verbs(stage["use"])} for stage in built]


def _is_stage(use: str) -> bool:
    """Listeners live in the supervisor and see no call; what can't be loaded is told by `_verbs`."""
    from gateway import registry

    try:
        return not issubclass(registry.load(use), Listener)
    except Exception:
        return True


def _verbs(use: str) -> list[str]:
    from gateway import registry

    try:
        stage = registry.load(use)
    except Exception as error:  # a plugin's module may fail in any way
        raise Refused(f"the stage {use} can't be loaded: {error}") from None
    return [verb for verb in VERBS if getattr(stage, verb, None) is not getattr(Stage, verb)]


def _backend(backend: BackendSettings) -> dict[str, Any]:
    return {
        "name": backend.name,
        "kind": backend.kind,
        "base_url": backend.base_url,
        "keys": [key.source for key in backend.api_keys],
        "transport": "httpx" if backend.proxy or backend.http2 else "pool",
        "connections": backend.connections,
    }


def _model(rule: ModelRule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "targets": [target(item) | {"weight": item.weight} for item in rule.targets],
        "fallback": [target(item) for item in rule.fallback],
    }


def target(item: Target) -> dict[str, Any]:
    """A target; without a model of its own it keeps the name the caller used."""
    return {"backend": item.backend, "model": item.model or None}


def limit(rule: LimitRule) -> dict[str, Any]:
    """A limit as the operator wrote it."""
    per = Window().show((rule.seconds, rule.calendar)) if rule.unit != "concurrent" else None
    amount = rule.amount / MICROS if rule.unit == "usd" else rule.amount
    return {
        "id": rule.id,
        "scope": list(rule.scope),
        "match": rule.match,
        rule.unit: amount,
        "per": per,
        "zone": rule.zone if rule.calendar else None,
        "burst": rule.burst or None,
        "warn": rule.warn,
        "mode": rule.mode,
    }


def policy(each: Policy) -> dict[str, Any]:
    """A policy as far as a line tells of it; `looks_at` are the attributes of its condition."""
    return {
        "name": each.name,
        "effect": each.effect,
        "mode": each.mode,
        "looks_at": list(dict.fromkeys(each.when.attributes())),
    }


def words(rule: dict[str, Any]) -> str:
    """A limit in one line."""
    unit = next(name for name in UNITS if name in rule)
    amount = f"{rule[unit]:,g} USD" if unit == "usd" else f"{rule[unit]:,} {unit.replace('_', ' ')}"
    per = f" per {rule['per']}" if rule["per"] else ""
    zone = f" ({rule['zone']})" if rule["zone"] not in (None, "UTC") else ""
    burst = f", {rule['burst']:,} at once" if rule["burst"] else ""
    shadow = "  (shadow: refuses nothing)" if rule["mode"] == "shadow" else ""
    return f"{amount}{per}{zone}{burst}{shadow}"


def shown(item: dict[str, Any]) -> str:
    """`backend` or `backend/model`."""
    return f"{item['backend']}/{item['model']}" if item["model"] else str(item["backend"])
