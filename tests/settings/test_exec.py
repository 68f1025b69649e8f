"""Secrets from commands: how they are found, run, read, kept, renewed, and what is said when they fail."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import exec as execs
from gateway.settings.exec import Command, Execs, Failed, command, execute, parse
from gateway.settings.faults import ConfigError
from gateway.settings.load import load
from gateway.settings.schema import Settings

CANARY = "sk-canary-exec-5f1c"


def program(directory: Path, text: str, name: str = "give") -> Path:
    """An executable shell script; written whole under another name first, as nobody may see half of it."""
    draft = directory / f"{name}.draft"
    draft.write_text(f"#!/bin/sh\n{text}\n")
    draft.chmod(0o700)
    draft.replace(directory / name)
    return directory / name


def config(directory: Path, secret: str, more: str = "") -> Path:
    file = directory / "gateway.toml"
    file.write_text(
        f"[backends.a]\nkind = 'openai'\nbase_url = 'https://a.example/v1'\napi_key = '''{secret}'''\n{more}"
    )
    return file


def key(settings: Settings) -> str:
    return settings.backends["a"].api_keys[0].reveal()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises((Failed, ConfigError)) as caught:
        call()
    assert CANARY not in str(caught.value)
    return str(caught.value)


# -- in a configuration


def test_a_command_beside_the_file_gives_a_secret(tmp_path: Path) -> None:
    program(tmp_path, f"echo {CANARY}")
    settings = load(config(tmp_path, "exec:./give"), {"PATH": os.environ["PATH"]})
    assert key(settings) == CANARY
    assert settings.backends["a"].api_keys[0].source == f"exec:{tmp_path / 'give'}"
    assert not settings.warnings


def test_arguments_are_split_like_a_shell_does_and_no_shell_sees_them(tmp_path: Path) -> None:
    program(tmp_path, 'printf "%s|" "$@"')
    settings = load(config(tmp_path, "exec:give 'a b' $HOME ; c"), {})
    assert key(settings) == "a b|$HOME|;|c|"


def test_a_command_works_wherever_a_secret_may_stand(tmp_path: Path) -> None:
    program(tmp_path, f'echo "{CANARY}-$1"')
    more = (
        "headers = { x-own = 'exec:give header' }\nproxy = 'exec:give proxy'\n"
        "[[keys]]\nname = 'k'\nkey = 'exec:give key'\n"
        "[[plugins]]\nuse = 'plugins.example:Example'\ndeep = { token = ['exec:give plugin'] }\n"
    )
    program(tmp_path, 'if [ $1 = proxy ]; then echo http://u:p@proxy:1; else echo "x-$1"; fi')
    settings = load(config(tmp_path, "exec:give api", more), {"PATH": os.environ["PATH"]})
    backend = settings.backends["a"]
    assert key(settings) == "x-api"
    assert backend.secret_headers[0][1].reveal() == "x-header"
    assert backend.proxy is not None and backend.proxy.reveal() == "http://u:p@proxy:1"
    assert settings.plugins[0][1]["deep"]["token"][0].reveal() == "x-plugin"  # type: ignore[index]
    assert len(settings.keys) == 1


def test_a_command_gets_a_small_environment_and_what_is_lent_to_it(tmp_path: Path) -> None:
    program(tmp_path, "/usr/bin/env | /usr/bin/sort | /usr/bin/tr '\\n' ' '")
    environ = {"PATH": "/bin", "HOME": "/h", "OPENAI_KEY": CANARY, "VAULT_ADDR": "v"}
    file = config(tmp_path, "exec:give", "[secrets]\nenvironment = ['VAULT_ADDR']\n")
    words = set(key(load(file, environ)).split())
    assert {"PATH=/bin", "HOME=/h", "VAULT_ADDR=v"} <= words
    assert not any(CANARY in word for word in words)


def test_a_failing_command_is_a_fault_that_names_it_and_not_what_it_printed(tmp_path: Path) -> None:
    program(tmp_path, f"echo {CANARY}; echo {CANARY} >&2; exit 3")
    told = refused(lambda: load(config(tmp_path, f"exec:give {CANARY}"), {}))
    assert "gateway.toml:4:11  backends.a.api_key" in told
    assert '"exec:give": ended with status 3' in told


def test_commands_of_ours_that_need_no_secret_run_nothing(tmp_path: Path) -> None:
    program(tmp_path, f"touch {tmp_path}/ran; echo {CANARY}")
    settings = load(config(tmp_path, f"exec:give {CANARY}"), {}, resolve=False)
    assert not (tmp_path / "ran").exists()
    assert CANARY not in settings.backends["a"].api_keys[0].source


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exec:", "names no command"),
        ("exec:'", "quotes do not match"),
        ("exec:nothing-here", "there is no such program"),
        ("exec:./plain", "chmod +x"),
        ("exec:/", "there is no such program"),
    ],
)
def test_a_command_that_cannot_be_found_is_told_with_what_would_be_right(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("")
    assert said in refused(lambda: command(text, tmp_path))
    assert said in refused(lambda: load(config(tmp_path, text) if "'" not in text else quoted(tmp_path), {}))


def quoted(directory: Path) -> Path:
    file = directory / "gateway.toml"
    file.write_text('[[keys]]\nname = "k"\nkey = "exec:\'"\n')
    return file


# -- one run


def test_nothing_of_a_command_lives_on(tmp_path: Path) -> None:
    program(tmp_path, f"sleep 1000 >/dev/null & echo $! > {tmp_path}/pid; echo {CANARY}")
    assert execute(command("exec:give", tmp_path), {"PATH": "/bin:/usr/bin"}).strip() == CANARY.encode()
    pid = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 60
    while time.monotonic() < end and lives(pid):
        time.sleep(0.01)
    assert not lives(pid)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs, "DEADLINE", 0.1)
    program(tmp_path, f"echo {CANARY}; exec sleep 1000")
    assert "longer than 0.1 s" in refused(lambda: execute(command("exec:give", tmp_path), {"PATH": "/bin"}))
    program(tmp_path, f"echo {CANARY}; exec >&-; exec sleep 1000")
    assert "longer than 0.1 s" in refused(lambda: execute(command("exec:give", tmp_path), {"PATH": "/bin"}))


def test_a_command_that_prints_too_much_is_ended(tmp_path: Path) -> None:
    program(tmp_path, f"while :; do echo {CANARY}; done")
    assert "more than 64 KiB" in refused(lambda: execute(command("exec:give", tmp_path), {}))


def test_a_command_killed_by_a_signal_or_not_startable_says_so(tmp_path: Path) -> None:
    program(tmp_path, "kill -9 $$")
    assert "signal SIGKILL" in refused(lambda: execute(command("exec:give", tmp_path), {}))
    (tmp_path / "give").write_text("#!/no/such/interpreter\n")
    assert "can't be started" in refused(lambda: execute(command("exec:give", tmp_path), {}))


# -- what it printed


def test_plain_text_is_its_first_line() -> None:
    assert parse(b"  secret \nmore\n", 5.0) == ("secret", 0.0)


@pytest.mark.parametrize(
    ("printed", "until"),
    [
        (b'{"value": "v"}', 0.0),
        (b'{"value": "v", "ttl": 60}', 1060.0),
        (b'{"value": "v", "expires_at": 5000.5, "ttl": 1}', 5000.5),
        (b'{"value": "v", "expires_at": "1970-01-01T01:00:00Z"}', 3600.0),
        (b'{"value": "v", "expires_at": "1970-01-01T01:00:00"}', 3600.0),
        (b'\n{"value": "v", "expires_at": "1970-01-01T02:00:00+01:00", "more": []}', 3600.0),
    ],
)
def test_json_may_say_when_the_secret_ends(printed: bytes, until: float) -> None:
    assert parse(printed, 1000.0) == ("v", until)


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"\n\n",
        b"\xff\xfe",
        b"{",
        b"{}",
        b'{"value": ""}',
        b'{"value": 5}',
        b'{"value": "v", "ttl": "1h"}',
        b'{"value": "v", "ttl": true, "expires_at": []}',
        b'{"value": "v", "expires_at": "soon"}',
        b'{"value": "v", "expires_at": 5}',
        b'{"value": "v", "ttl": -1}',
        b"{" * 50_000,
    ],
)
def test_anything_else_is_no_secret(printed: bytes) -> None:
    with pytest.raises(Failed):
        parse(printed, 1000.0)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_output_is_a_secret_or_a_failure_that_does_not_quote_it(printed: bytes) -> None:
    try:
        value, _ = parse(printed, 0.0)
    except Failed as failed:
        assert len(str(failed)) < 120
    else:
        assert value and "\n" not in value


# -- over time


class Play:
    """A clock and a command whose answers the test gives."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answers: list[bytes | Failed] = []
        self.asked = 0
        self.execs = Execs(self.run, lambda: self.now)

    def run(self, wanted: Command, environ: Mapping[str, str]) -> bytes:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Failed):
            raise answer
        return answer


GIVE = Command(("/bin/give",), "/")


def test_a_value_is_kept_until_it_is_due() -> None:
    play = Play()
    play.answers = [b"one", b"two"]
    assert [play.execs.value(GIVE, {}) for _ in range(3)] == ["one"] * 3
    assert play.asked == 1 and not play.execs.moved
    play.now += 299
    assert play.execs.due() == []
    play.now += 1
    assert play.execs.due() == [GIVE]
    assert play.execs.renew(GIVE, {}) == ""
    assert play.execs.moved, "the configuration must be read again"
    assert play.execs.value(GIVE, {}) == "two"
    assert not play.execs.moved and play.execs.due() == []


def test_a_value_that_ends_is_asked_for_before() -> None:
    play = Play()
    play.answers = [b'{"value": "one", "ttl": 100}', b'{"value": "one", "ttl": 100}']
    play.execs.value(GIVE, {})
    play.now += 79
    assert play.execs.due() == []
    play.now += 1
    assert play.execs.due() == [GIVE]
    play.execs.renew(GIVE, {})
    assert not play.execs.moved, "the same value again changes nothing"


def test_a_command_that_fails_keeps_its_last_value_and_is_tried_again() -> None:
    play = Play()
    play.answers = [b"one", Failed("ended with status 1"), Failed("ended with status 1"), b"two"]
    play.execs.value(GIVE, {})
    play.now += 300
    assert play.execs.renew(GIVE, {}) == "ended with status 1"
    assert play.execs.value(GIVE, {}) == "one" and not play.execs.moved
    assert play.execs.failing() == {"exec:/bin/give": "ended with status 1"}
    play.now += 9
    assert play.execs.due() == []
    play.now += 1
    play.execs.renew(GIVE, {})
    play.now += 20
    assert play.execs.due() == [GIVE]
    assert play.execs.renew(GIVE, {}) == ""
    assert play.execs.failing() == {} and play.execs.value(GIVE, {}) == "two"


def test_a_command_that_never_worked_has_the_configuration_read_again_later() -> None:
    play = Play()
    play.answers = [Failed("ended with status 1"), b"one"]
    with pytest.raises(Failed):
        play.execs.value(GIVE, {})
    assert not play.execs.moved
    play.now += 10
    assert play.execs.moved
    assert play.execs.value(GIVE, {}) == "one"
    play.execs.keep([GIVE])
    assert not play.execs.moved


def test_what_no_configuration_needs_any_more_is_not_asked_again() -> None:
    play = Play()
    play.answers = [b"one", b"two"]
    play.execs.value(GIVE, {})
    play.execs.keep([])
    play.now += 1e6
    assert play.execs.due() == [] and not play.execs.moved
    assert play.execs.renew(GIVE, {}) == ""
    assert play.execs.value(GIVE, {}) == "two"


def test_literal_secrets_and_arguments_are_known_so_that_nobody_shows_them_with_the_file(
    tmp_path: Path,
) -> None:
    program(tmp_path, "echo x")
    more = '[[keys]]\nname = "k"\nkey = "sk-literal-key"\n'
    for resolve in (True, False):
        settings = load(config(tmp_path, f"exec:give {CANARY} two", more), {"PATH": "/bin"}, resolve=resolve)
        assert [secret.reveal() for secret in settings.literals] == [f"{CANARY} two", "sk-literal-key"]
        assert CANARY not in repr(settings) and "sk-literal" not in repr(settings)
