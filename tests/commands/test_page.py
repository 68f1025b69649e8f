"""docs/admin.md: its commands and requests work one after the other, as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import httpx

from gateway.core.limit import LimitRule
from tests.control.desk import SETTINGS, Desk, talk
from tests.e2e.gateway import Gateway
from tests.test_audit_page import executed
from tests.test_cli import Run, run, write

__all__ = ["run"]

PAGE = (Path(__file__).parents[2] / "docs" / "admin.md").read_text()
CONFIG = (
    '[backends.e]\nkind = "echo"\n[[limits]]\nname = "per-key"\nscope = "key"\nrequests = 60\nper = "1m"\n'
)


def test_the_commands_work_one_after_the_other(run: Run) -> None:
    (text,) = re.findall(r"^<!-- command line -->\n```bash\n(.*?)^```", PAGE, re.M | re.S)
    write(CONFIG)
    write(CONFIG.replace("60", "90"), "draft.toml")
    said = executed(run, text)
    assert len(said) == text.count("penstock ") == 20
    made, rotated, listed, *_ = said
    assert (
        made.startswith("sk-ps-") and rotated.startswith("sk-ps-") and "The one before works until" in rotated
    )
    assert "acme" in listed and "+requests = 90" in said[-3]
    assert "requests = 60" in said[-1] and Path("gateway.toml").read_text() == CONFIG


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.M | re.S)


def test_the_request_with_curl_is_answered(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("bash") if block.startswith("curl ")]
    environ = {"PENSTOCK_ADMIN_TOKEN": "psa-page-0123456789"}
    with Gateway(tmp_path, CONFIG, env=environ) as gateway:
        command = text.replace("127.0.0.1:9090", f"127.0.0.1:{gateway.admin_port}")
        done = subprocess.run(
            ["bash", "-c", command], env={**os.environ, **environ}, capture_output=True, check=True
        )
    assert json.loads(done.stdout)["roles"] == ["admin"]


def test_the_bodies_are_taken_in_their_order(tmp_path: Path) -> None:
    rules = (LimitRule("per-key", ("key",), "requests", 60, 60.0),)
    desk = Desk(tmp_path, replace(SETTINGS, limits=rules))
    requests = blocks("json")
    assert len(requests) == 4

    async def all_of_them(client: httpx.AsyncClient) -> list[int]:
        found = []
        for request in requests:
            line, _, body = request.partition("\n")
            method, path = line.split()
            answer = await client.request(method, path.removeprefix("/admin/v1"), content=body)
            found.append(answer.status_code)
        return found

    answered = talk(desk, all_of_them)
    desk.ledger.close()
    assert answered == [201, 200, 201, 201]
