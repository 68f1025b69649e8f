"""What policies cost a call: `python -m bench.policies`.

Twenty policies of which six apply, judged call by call as the worker does, on calls that the front has
parsed. Prints microseconds of CPU per call, the best of several rounds.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.core.call import Call
from gateway.core.cost import Price, PriceList
from gateway.core.keys import Keys
from gateway.core.parts import Parts
from gateway.core.policy import Policy
from gateway.core.principal import KeyEntry, Principal
from gateway.core.route import Plan, Target
from gateway.settings.load import load
from gateway.settings.schema import Settings
from gateway.stages.policy.stage import Policies

CALLS, ROUNDS = 20_000, 7
OTHERS = "".join(
    f'[[policies]]\nname = "other-{n}"\nwhen = {{ tenant = "tenant-{n}", tools = "shell*" }}\ndeny = "no"\n'
    for n in range(14)
)
# Six that apply to the caller, by what is left of each for the single call.
SIX = {
    "none of 20 applies": (),
    "6 of 20 apply, decided by caller, model and tags": (
        'when = { tenant = "acme", model = "!m*" }\ndeny = "no"',
        'when = { tenant = "acme", tags = "batch" }\ndeny = "no"',
        'when = { tenant = "acme", roles = "automation" }\nrequire = { max_tokens = true }',
        'when = { team = "search", endpoint = "embeddings" }\ndeny = "no"',
        'when = { tenant = "acme", classification = "restricted" }\ndeny = "no"',
        'when = { tenant = "acme" }\nallow = true',
    ),
    "6 of 20 apply, looking at time, address, tools, cost, temperature": (
        'when = { tenant = "acme", time = { days = "sat-sun" }, stream = true }\ndeny = "no"',
        'when = { tenant = "acme", client = "!192.0.2.0/24" }\ndeny = "no"',
        'when = { tenant = "acme", tools = "shell*" }\ndeny = "no"',
        'when = { tenant = "acme", cost = { above = 5 } }\ndeny = "no"',
        'when = { tenant = "acme", max_tokens = { above = 8000 } }\ndeny = "no"',
        'when = { tenant = "acme", temperature = { above = 1.5 } }\ndeny = "no"',
    ),
    "6 of 20 apply, two of them set temperature and seed": (
        'when = { tenant = "acme" }\nset = { temperature = { at_most = 0.2 } }',
        'when = { tenant = "acme" }\nset = { seed = 7 }',
        'when = { tenant = "acme", client = "!192.0.2.0/24" }\ndeny = "no"',
        'when = { tenant = "acme", tools = "shell*" }\ndeny = "no"',
        'when = { tenant = "acme", cost = { above = 5 } }\ndeny = "no"',
        'when = { tenant = "acme", max_tokens = { above = 8000 } }\ndeny = "no"',
    ),
}


def settings(texts: tuple[str, ...]) -> Settings:
    """Those that apply, and others up to twenty."""
    more = "".join(f'[[policies]]\nname = "own-{n}"\n{text}\n' for n, text in enumerate(texts))
    filler = "".join(
        f'[[policies]]\nname = "filler-{n}"\nwhen = {{ tenant = "nobody" }}\ndeny = "no"\n'
        for n in range(6 - len(texts))
    )
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "gateway.toml"
        file.write_text(OTHERS + more + filler)
        return load(file, {})


def stage(policies: tuple[Policy, ...]) -> Policies:
    """The stage with what it needs and no more."""
    nothing: Any = None
    prices = PriceList({"m": Price.of({"input": 1.0, "output": 4.0})})
    parts = Parts("r", 0, Keys(), nothing, nothing, {}, (), (), prices, policies=policies)
    return Policies({}, parts)


def calls(count: int) -> list[Call]:
    """Calls of one caller, as the front and the stages before leave them."""
    document = {
        "model": "m", "max_tokens": 100, "temperature": 0.7,
        "messages": [{"role": "user", "content": "x" * 600}],
        "tools": [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}],
    }  # fmt: skip
    body = json.dumps(document).encode()
    principal = Principal(KeyEntry("k", "k", b"", tenant="acme", team="search"))
    plan = Plan((Target("up"),), "exact", "m")
    made = []
    for _ in range(count):
        call = Call("POST", "/chat/completions", "chat/completions", [], body)
        call.document, call.model, call.principal, call.plan = dict(document), "m", principal, plan
        call.client, call.wall = "192.0.2.7", 1_767_614_400.0
        made.append(call)
    return made


def measure(judge: Callable[[Call], object]) -> float:
    """Microseconds of CPU per call."""
    best = float("inf")
    for _ in range(ROUNDS):
        waiting = calls(CALLS)
        begun = time.process_time()
        for call in waiting:
            judge(call)
        best = min(best, time.process_time() - begun)
    return best / CALLS * 1e6


def main() -> None:
    """Print one line per kind of policies."""
    print(f"{'us a call':>10}  policies")
    for what, texts in SIX.items():
        print(f"{measure(stage(settings(texts).policies).admit):10.2f}  {what}")


if __name__ == "__main__":
    main()
