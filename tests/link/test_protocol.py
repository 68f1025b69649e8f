"""Frames: cut anywhere, bounded, and nothing but JSON objects with a type."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.group import Capture, Member, Tenant
from gateway.core.principal import KeyEntry, digest
from gateway.link import protocol
from gateway.link.protocol import Decoder, LinkError, encode
from gateway.settings.schema import BackendSettings, Settings
from gateway.settings.secret import Secret

messages = st.lists(
    st.fixed_dictionaries({"t": st.text(max_size=8)}, optional={"n": st.integers(0, 9), "s": st.text()}),
    max_size=5,
)


@given(messages, st.lists(st.integers(1, 20)))
def test_messages_come_out_whole_wherever_the_bytes_were_cut(sent, cuts):
    wire = b"".join(encode(message) for message in sent)
    decoder, got = Decoder(), []
    for cut in cuts:
        got += decoder.feed(wire[:cut])
        wire = wire[cut:]
    assert got + decoder.feed(wire) == sent


def test_a_frame_that_claims_to_be_too_long_is_refused_before_it_is_buffered():
    with pytest.raises(LinkError, match="at most"):
        Decoder().feed((protocol.LARGEST + 1).to_bytes(4, "big"))


def test_a_message_that_is_too_long_is_not_sent():
    with pytest.raises(LinkError, match="at most"):
        encode({"t": "x", "data": "y" * protocol.LARGEST})


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"{}", b'{"t":1}'])
def test_a_frame_that_is_not_a_typed_object_is_refused(body):
    with pytest.raises(LinkError):
        Decoder().feed(len(body).to_bytes(4, "big") + body)


def test_a_revision_carries_the_settings_with_their_secrets():
    backend = BackendSettings(name="openai", kind="openai", api_keys=(Secret("sk-canary", "env:KEY"),))
    settings = Settings(revision="r1", backends={"openai": backend})
    (message,) = Decoder().feed(encode(protocol.revision(settings)))
    assert message["id"] == "r1"
    assert protocol.settings_of(message) == settings
    assert protocol.settings_of(message).backends["openai"].api_keys[0].reveal() == "sk-canary"


def test_settings_survive_pickling_as_they_are():
    assert pickle.loads(pickle.dumps(Settings(revision="r"))) == Settings(revision="r")


def test_key_entries_come_back_equal():
    plain = KeyEntry(id="k1", name="ci", digest=digest(b"secret"))
    full = KeyEntry(
        "k2", "x", digest(b"b"), "t", "g", "u", ("a",), ("gpt-*",), ("chat/*",), ("tag",), 1.5, True,
        networks=("10.0.0.0/8",), previous=digest(b"c"), previous_until=2.5, origin="ledger",
    )  # fmt: skip
    (message,) = Decoder().feed(encode(protocol.keys([plain, full])))
    assert protocol.entries_of(message) == [plain, full]


def test_tenants_and_changes_come_back_equal():
    member = Member("m", ("a",), ("b",), ("10.0.0.0/8",), ("t",), True)
    tenant = Tenant(
        "acme", "d", ("x",), teams={"t": member}, users={"u": Member()}, capture=Capture(0.5, ("ip",))
    )
    made = Tenant("other", origin="ledger")
    (message,) = Decoder().feed(encode(protocol.keys([], [tenant, made])))
    assert protocol.tenants_of(message) == [tenant, made]
    entry = KeyEntry(id="k1", name="ci", digest=digest(b"secret"))
    few, all_ = Decoder().feed(
        encode(protocol.key_changes([entry], ["k2"])) + encode(protocol.key_changes([], (), [tenant]))
    )
    assert (protocol.entries_of(few), few["gone"], protocol.tenants_of(few)) == ([entry], ["k2"], None)
    assert (protocol.entries_of(all_), protocol.tenants_of(all_)) == ([], [tenant])
