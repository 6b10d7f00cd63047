"""The grpc probe: one unary call over HTTP/2 in clear, with the few frames that it takes.

Rules: Kubernetes 1.36 ``pkg/probe/grpc`` (grpc.health.v1.Health/Check; SERVING is success), RFC 9113, RFC 7541.
"""

import struct
from typing import Optional

from .loop import Loop
from .network import Connection, Result, TimedOutError, authority_of
from .plan import Action

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_SERVING = 1
_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """Return a header as an HPACK literal without indexing; lengths below 127 take one byte."""
    out = b"\x00"
    for text in (name, value):
        raw = text.encode("utf-8")
        if len(raw) < 127:
            out += bytes((len(raw),)) + raw
        else:
            rest, length = len(raw) - 127, b"\x7f"
            while rest >= 128:
                length += bytes((rest % 128 + 128,))
                rest //= 128
            out += length + bytes((rest,)) + raw
    return out


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes((number & 127 | 128,))
        number >>= 7
    return out + bytes((number,))


async def grpc(loop: Loop, host: str, action: Action, timeout: Optional[float]) -> Result:
    """Call grpc.health.v1.Health/Check; only SERVING is success."""
    connection = Connection(loop, timeout)
    where = authority_of(host, action.port)
    try:
        await connection.open(host, action.port)
        return await _check(connection, where, action.path)
    except TimedOutError:
        return False, 'timeout: failed to connect service "%s" within %gs' % (where, timeout or 0)
    except OSError as error:
        return False, 'error: failed to connect service "%s": %s' % (where, error.strerror or error)
    finally:
        connection.close()


async def _check(connection: Connection, authority: str, service: str) -> Result:
    headers = (
        (":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"), (":authority", authority),
        ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "kube-probe/1.36"),
    )  # fmt: skip
    name = service.encode("utf-8")
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    block = b"".join(_literal(*header) for header in headers)
    body = b"\x00" + struct.pack(">I", len(message)) + message
    await connection.send(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, block)
        + _frame(_DATA, _END_STREAM, 1, body)
    )
    data, answer = b"", b""
    while True:
        more = await connection.receive()
        if not more:
            return False, "error: health rpc failed: the connection was closed"
        data += more
        while len(data) >= 9:
            length = struct.unpack(">I", b"\0" + data[:3])[0]
            if len(data) < 9 + length:
                break
            kind, flags, payload = data[3], data[4], data[9 : 9 + length]
            data = data[9 + length :]
            if kind == _SETTINGS and not flags & _ACK:
                await connection.send(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                await connection.send(_frame(_PING, _ACK, 0, payload))
            elif kind == _DATA:
                answer += payload
            elif kind in (_RESET, _GOAWAY):
                return False, "error: health rpc failed: the server ended the stream"
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                return _health(answer)


def _health(answer: bytes) -> Result:
    """Read a HealthCheckResponse: field 1, a varint. Without one the call has failed, or the status is UNKNOWN."""
    if len(answer) < 5:
        return (
            False,
            "error: health rpc failed: the server does not implement the grpc health protocol for this service",
        )
    message = answer[5:]
    status = message[1] if len(message) >= 2 and message[0] == 0x08 else 0
    if status == _SERVING:
        return True, "service healthy"
    return False, 'service unhealthy (responded with "%s")' % _STATUS.get(status, str(status))
