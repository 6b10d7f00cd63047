import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.api.streaming import spdy
from vkubelet.api.streaming.dictionary import DICTIONARY
from vkubelet.api.streaming.spdy import Data, FrameEncoder, FrameParser, GoAway, Ping, Reset, SynReply, SynStream

numbers = st.integers(0, 2**31 - 1)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(str.lower)
headers = st.dictionaries(names, st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=100), max_size=8)
frames = st.one_of(
    st.builds(SynStream, numbers, headers, st.booleans()),
    st.builds(SynReply, numbers, headers, st.booleans()),
    st.builds(Data, numbers, st.binary(max_size=2000), st.booleans()),
    st.builds(Reset, numbers, st.integers(0, 2**32 - 1)),
    st.builds(Ping, st.integers(0, 2**32 - 1)),
    st.builds(GoAway, numbers, st.integers(0, 2**32 - 1)),
)


def whole(parts: list[spdy.Frame]) -> list[spdy.Frame]:
    """Put the pieces of data frames together: a piece that is not the last of its frame precedes the rest of it."""
    result: list[spdy.Frame] = []
    for part in parts:
        before = result[-1] if result else None
        if isinstance(part, Data) and isinstance(before, Data) and before.stream == part.stream and not before.last:
            result[-1] = Data(part.stream, before.data + part.data, part.last)
        else:
            result.append(part)
    return result


def test_the_dictionary_is_that_of_the_draft():
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(st.lists(frames, max_size=8), st.integers(1, 700))
def test_frames_survive_however_their_bytes_are_cut(sent, size):
    encoder, parser = FrameEncoder(), FrameParser()
    text = b"".join(encoder.encode(frame) for frame in sent)
    received = [frame for start in range(0, len(text), size) for frame in parser.feed(text[start : start + size])]
    assert whole(received) == whole(list(sent))
    assert not parser.in_frame


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_whatever_arrives_is_frames_or_an_error(pieces):
    parser = FrameParser()
    try:
        for piece in pieces:
            for frame in parser.feed(piece):
                assert not isinstance(frame, Data) or len(frame.data) <= 300
    except spdy.SpdyError:
        pass


@given(st.lists(frames, min_size=1, max_size=3), st.data())
def test_a_flipped_byte_is_frames_or_an_error(sent, data):
    encoder, parser = FrameEncoder(), FrameParser()
    text = bytearray(b"".join(encoder.encode(frame) for frame in sent))
    text[data.draw(st.integers(0, len(text) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(spdy.SpdyError):
        list(parser.feed(bytes(text)))


def test_what_go_sends_is_understood():
    # The first stream of a kubectl 1.36, as moby/spdystream wrote it: Z_SYNC_FLUSH, names in lower case.
    block = zlib.compressobj(zdict=DICTIONARY)
    plain = struct.pack(">I", 1) + struct.pack(">I", 10) + b"streamtype" + struct.pack(">I", 5) + b"error"
    body = struct.pack(">IIH", 1, 0, 0) + block.compress(plain) + block.flush(zlib.Z_SYNC_FLUSH)
    frame = struct.pack(">HHI", 0x8003, 1, len(body)) + body
    assert list(FrameParser().feed(frame)) == [SynStream(1, {"streamtype": "error"})]


def test_several_values_of_a_header_are_its_first():
    encoder = FrameEncoder()
    text = encoder.encode(SynStream(1, {"a": "first\0second"}))
    assert list(FrameParser().feed(text)) == [SynStream(1, {"a": "first"})]


def test_frames_that_nobody_needs_are_passed_over():
    settings = struct.pack(">HHI", 0x8003, 4, 12) + bytes(12)
    window = struct.pack(">HHI", 0x8003, 9, 8) + bytes(8)
    assert list(FrameParser().feed(settings + window)) == []


def control(kind: int, body: bytes, *, version: int = 3, length: int | None = None) -> bytes:
    return struct.pack(">HHI", 0x8000 | version, kind, len(body) if length is None else length) + body


def block(plain: bytes) -> bytes:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    return bytes(10) + deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (control(1, b"", version=2), "version 2"),
        (control(1, b"", length=0xFFFFFF), "16777215 bytes"),
        (control(77, b""), "unknown type 77"),
        (control(3, b"\0"), "too short"),
        (control(6, b""), "too short"),
        (control(1, bytes(10)), "too short"),
        (control(1, bytes(10) + b"no zlib"), "decompressed"),
        (control(1, block(b"")[:-6]), "too short"),
        (control(1, block(struct.pack(">I", 1))), "too short"),
        (control(1, block(struct.pack(">II", 1, 0x7FFFFFFF))), "longer than its block"),
        (control(1, block(struct.pack(">I", 1000))), "1000 headers"),
        (control(1, block(bytes(1_000_000))), "more than 16384 bytes"),
        (control(1, bytes(10) + zlib.compress(bytes(4))), "after the end"),
    ],
)
def test_what_is_wrong_is_an_error_that_says_it(text, why):
    with pytest.raises(spdy.SpdyError, match=why):
        list(FrameParser().feed(text))
