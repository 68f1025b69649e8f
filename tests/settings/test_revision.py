from __future__ import annotations

from dataclasses import replace

from gateway.settings.load import load
from gateway.settings.revision import revision
from gateway.settings.schema import BackendSettings, Settings
from gateway.settings.secret import Secret


def test_equal_settings_have_equal_ids() -> None:
    assert load(None, {}).revision == load(None, {}).revision


def test_a_rotated_secret_is_a_new_revision() -> None:
    one, two = (load(None, {"OPENAI_API_KEY": key}) for key in ("sk-1", "sk-2"))
    assert one.revision != two.revision


def test_where_the_settings_came_from_does_not_count() -> None:
    settings = load(None, {})
    moved = replace(settings, path="/elsewhere", sources=("x",), warnings=("y",), revision="")
    assert revision(moved) == settings.revision


def test_values_that_only_look_alike_differ() -> None:
    def of(**headers: str | tuple[Secret, ...]) -> str:
        return revision(Settings(backends={"a": BackendSettings("a", "openai", **headers)}))  # type: ignore[arg-type]

    assert len({of(base_url="x"), of(ca="x"), of(api_keys=(Secret("x"),)), of()}) == 4
    split = (Secret("a"), Secret("b"))
    assert of(api_keys=split) != of(api_keys=(Secret("ab"),))
