"""docs/secrets.md, docs/capture.md and docs/notices.md: what they show works as it stands there."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Any

from gateway import registry
from gateway.core.group import Capture
from gateway.core.notice import KINDS as NOTICES
from gateway.core.notice import Listener, Notice
from gateway.core.redact import KINDS, redact
from gateway.settings.load import load
from gateway.supervisor.notices import DEADLINE, QUEUE, TRIES, Notices, kinds_of
from plugins.webhook import Webhook, document
from tests.test_cli import Run, run

__all__ = ["run"]

DOCS = Path(__file__).parent.parent / "docs"


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


def block(name: str, mark: str) -> str:
    found = re.findall(rf"^<!-- {mark} -->\n```\w+\n(.*?)^```", page(name), re.M | re.S)
    assert len(found) == 1, mark
    text: str = found[0]
    return text


def test_the_command_gives_the_key_of_the_configuration_beside_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(block("secrets", "run: key"))
    (tmp_path / "key").chmod(0o700)
    (tmp_path / "gateway.toml").write_text(block("secrets", "uses: key"))
    settings = load(tmp_path / "gateway.toml", {"PATH": "/usr/bin:/bin"})
    assert settings.backends["openai"].api_keys[0].reveal() == "sk-from-a-vault"
    assert settings.secrets.refresh == 60.0


def test_the_commands_on_captures_work(run: Run) -> None:
    assert run("keys", "add", "k").status == 0  # now there is a ledger
    for line in block("capture", "run: acme").splitlines():
        words = shlex.split(line, comments=True)
        assert words.pop(0) == "penstock"
        done = run(*words)
        assert done.status == 0, (line, done)


def test_the_kinds_of_finds_are_all_of_them_and_the_example_is_what_happens() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", page("capture"), re.M)) == KINDS == Capture().redact
    before, after = re.findall(r"^    (my key is .+?)   →   (.+)$", page("capture"), re.M)[0]
    assert redact(before.replace("8f…", "8f0123456789abcdef"))[0] == after


def test_the_kinds_of_notices_are_all_of_them() -> None:
    told = dict(re.findall(r"^\| `([a-z]+\.[a-z]+)` \| (.+) \|$", page("notices"), re.M))
    assert told == dict(NOTICES)


def test_the_webhook_of_the_page_can_be_made_and_sends_the_body_that_is_shown(tmp_path: Path) -> None:
    (toml,) = re.findall(r"^```toml\n(.*?)^```", page("notices"), re.M | re.S)
    (tmp_path / "gateway.toml").write_text(toml)
    settings = load(tmp_path / "gateway.toml", {"HOOK_SECRET": "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="})
    ((_, hook, options),) = registry.listeners(settings)
    assert isinstance(hook, Webhook)
    assert kinds_of(options) == ("limit.*", "store.*", "config.refused")
    notice = Notice("limit.near", "limit daily|acme", {"used": 80, "amount": 100}, 1_795_262_400_000)
    assert document(notice) == json.loads(block("notices", "body: limit.near"))


def test_the_listener_of_the_page_hears(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(block("notices", "run: listener"), names)
    listener = names["Lines"]({"path": str(tmp_path / "heard")})
    assert isinstance(listener, Listener)

    async def scenario() -> None:
        notices = Notices(lambda *name: None)
        notices.listen([("page:Lines", listener, ("*",))])
        notices.happened("store.lost", "redis")
        await notices.close()

    asyncio.run(scenario())
    assert (tmp_path / "heard").read_text() == "store.lost redis\n"


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    text = page("notices")
    assert DEADLINE == 10 and "ten seconds" in text
    assert TRIES == 6 and "six times" in text
    assert QUEUE == 1000 and "1000 notices wait" in text
