"""Frames: whatever the pieces they arrive in, and never larger than agreed."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_plugin.hostagent.protocol import (
    MAX_FRAME,
    Decoder,
    Frame,
    ProtocolError,
    decode_text,
    encode,
    encode_text,
)

PAYLOADS = st.binary(max_size=200)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    st.lists(st.tuples(st.dictionaries(st.text().filter(lambda key: key != "size"), st.text()), PAYLOADS)),
    st.integers(1, 50),
)
def test_frames_survive_being_cut_anywhere(sent: list[tuple[dict[str, str], bytes]], size: int) -> None:
    line = b"".join(encode(header, payload) for header, payload in sent)
    decoder = Decoder()
    received: list[Frame] = []
    for start in range(0, len(line), size):
        received += decoder.feed(line[start : start + size])
    assert [payload for _, payload in received] == [payload for _, payload in sent]
    for (header, payload), (original, _) in zip(received, sent, strict=True):
        assert header == ({**original, "size": len(payload)} if payload else original)


def test_a_frame_too_large_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        encode({"id": 1}, bytes(MAX_FRAME))


@pytest.mark.parametrize(
    "line",
    [
        struct.pack(">I", MAX_FRAME + 1),
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100),
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 4) + b"null",
        struct.pack(">I", 3) + b"{,}",
        struct.pack(">I", 13) + b'{"size": -10}',
        struct.pack(">I", 14) + b'{"size": "10"}',
        struct.pack(">I", 20) + b'{"size": 4294967296}',
    ],
)
def test_nonsense_is_refused_before_it_is_waited_for(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(line)


@given(TEXT)
def test_text_survives(text: str) -> None:
    assert decode_text(encode_text(text)) == text
    assert encode_text(text) == text.encode()


@given(st.binary().filter(lambda data: b"\0" not in data))
def test_bytes_that_are_no_text_survive(data: bytes) -> None:
    assert encode_text(decode_text(data)) == data


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_no_system_call_takes_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        encode_text(text)
