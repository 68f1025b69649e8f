"""The registry: names to classes, plugins in their place, and failures that say which part is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway import registry
from gateway.core.call import Call
from gateway.core.errors import PolicyError
from gateway.core.ports import Stage
from gateway.settings.schema import BackendSettings, Settings
from plugins.example import Example
from tests.stages.given import admit, parts


def test_every_built_in_name_can_be_loaded() -> None:
    for _, place in registry.STAGES:
        assert issubclass(registry.load(place), Stage)
    for place in registry.BACKENDS.values():
        assert isinstance(registry.load(place), type)


def test_the_stages_come_in_the_order_of_the_walk() -> None:
    built = registry.stages(Settings(), parts())
    names = [type(stage).__name__ for stage in built]
    assert names == ["Auth", "Access", "Catalog", "Route", "Limits", "Forward", "Meter"]


def test_plugins_stand_before_forward_and_get_their_options() -> None:
    settings = Settings(plugins=(("plugins.example:Example", {"bytes": 5}),))
    built = registry.stages(settings, parts())
    assert [type(stage).__name__ for stage in built[-3:]] == ["Example", "Forward", "Meter"]
    assert isinstance(built[-3], Example)
    assert built[-3].limit == 5


def test_the_template_refuses_what_it_says() -> None:
    stage = Example({"bytes": 5}, None)
    assert admit(stage, Call("POST", "/x", "other", [], b"12345")) is None
    with pytest.raises(PolicyError):
        admit(stage, Call("POST", "/x", "other", [], b"123456"))


@pytest.mark.parametrize("name", ["", "plugins.example", "plugins.example:", ":Example"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(registry.NotLoadable, match='must be "module:Class"'):
        registry.load(name)


def test_a_module_that_is_missing_is_named() -> None:
    with pytest.raises(
        registry.NotLoadable, match=r"the module 'plugins\.nothing' can't be imported \(ModuleNotFound"
    ):
        registry.load("plugins.nothing:Stage")


def test_a_module_that_fails_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_plugin.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(registry.NotLoadable, match=r"'broken_plugin' can't be imported \(ZeroDivisionError"):
        registry.load("broken_plugin:Stage")
    assert "broken_plugin" not in sys.modules


def test_a_class_that_is_missing_is_named() -> None:
    with pytest.raises(registry.NotLoadable, match=r"the module 'plugins\.example' has no class 'Nothing'"):
        registry.load("plugins.example:Nothing")
    with pytest.raises(registry.NotLoadable, match="no class called 'dumps'"):
        registry.load("json:dumps")


def test_a_plugin_that_is_no_stage_is_refused() -> None:
    with pytest.raises(registry.NotLoadable, match="is neither a Stage nor a Listener"):
        registry.stages(Settings(plugins=(("json:JSONDecoder", {}),)), parts())


def test_a_backend_is_made_from_its_settings() -> None:
    assert registry.backend(BackendSettings("e", "echo")).kind == "echo"
    assert registry.backend(BackendSettings("o", "openai", "http://127.0.0.1:1/v1")).kind == "openai"
    with pytest.raises(registry.NotLoadable, match="no kind 'carrier-pigeon'; there are openai, azure, echo"):
        registry.backend(BackendSettings("p", "carrier-pigeon"))
