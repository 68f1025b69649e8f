"""The bounded decoder."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import UpstreamError
from gateway.net.decode import Decoder, decodable


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "gzip": [gzip.compress, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])],
    "deflate": [zlib.compress, raw],
    "identity": [bytes],
    "": [bytes],
}
CASES = [(encoding, pack) for encoding, packers in PACKERS.items() for pack in packers]


@given(st.sampled_from(CASES), st.binary(max_size=2000), st.integers(min_value=1, max_value=50))
def test_any_pieces_decode_to_the_whole(case: tuple[str, object], data: bytes, step: int) -> None:
    encoding, pack = case
    packed = pack(data)  # type: ignore[operator]
    decoder = Decoder(encoding, 2000)
    pieces = [decoder.feed(packed[at : at + step]) for at in range(0, len(packed), step)]
    assert b"".join(pieces) == data


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_before_it_is_unpacked(encoding: str) -> None:
    packed = PACKERS[encoding][0](bytes(100 << 20))
    with pytest.raises(UpstreamError, match="decodes to more than 65536 bytes") as caught:
        Decoder(encoding, 65536, "up").feed(packed)
    assert (caught.value.code, caught.value.status) == ("upstream_protocol_error", 502)


def test_the_limit_counts_all_pieces() -> None:
    decoder = Decoder("identity", 10)
    assert decoder.feed(b"0123456789") == b"0123456789"
    with pytest.raises(UpstreamError, match="more than 10 bytes"):
        decoder.feed(b"x")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_is_not_what_it_claims_to_be_is_refused(encoding: str) -> None:
    with pytest.raises(UpstreamError, match=f"is not {encoding}"):
        Decoder(encoding, 1000).feed(b"\x78" + b"hello hello hello")


def test_unknown_encodings_are_named() -> None:
    assert decodable(" GZIP ")
    assert not decodable("br")
    with pytest.raises(ValueError, match="content-encoding 'br'"):
        Decoder("br", 10)
