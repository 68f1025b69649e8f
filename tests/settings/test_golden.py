"""Each tests/golden/config/NAME.toml says in NAME.txt, word for word, what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.faults import ConfigError
from gateway.settings.load import load

GOLDEN = Path(__file__).parents[1] / "golden" / "config"
NAMES = sorted(file.stem for file in GOLDEN.glob("*.toml"))
ENVIRON = {"SECRET": "sk-from-the-environment", "OTHER": "sk-another", "EMPTY": ""}


def verdict(name: str) -> str:
    """What `load` says about a file, as it stands in the golden file."""
    try:
        return "\n".join(["valid", *load(Path(f"{name}.toml"), ENVIRON).warnings])
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_is_judged_word_for_word(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    told = verdict(name)
    assert told + "\n" == (GOLDEN / f"{name}.txt").read_text()
    assert "sk-" not in told and "canary" not in told.replace(name, "")
    assert told.startswith("valid") == name.startswith("valid")


def test_every_golden_file_has_its_other_half() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(NAMES)
