"""Which protocol both sides speak: the kubelet's rules over HTTP headers. Pure.

Source: ``k8s.io/streaming/pkg/httpstream`` (``Handshake``) and ``pkg/kubelet/server`` of Kubernetes 1.36.
"""

from collections.abc import Sequence

from multidict import MultiMapping

VERSION_HEADER = "X-Stream-Protocol-Version"
ACCEPTED_HEADER = "X-Accepted-Stream-Protocol-Versions"

SPDY = "SPDY/3.1"
EXEC_VERSIONS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
FORWARD_VERSIONS = ("portforward.k8s.io",)
TUNNEL = "SPDY/3.1+portforward.k8s.io"
EXEC_SUBPROTOCOLS = (
    "v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io",
)  # fmt: skip
FORWARD_SUBPROTOCOLS = (TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io")


class RequestRefusedError(Exception):
    """The request can't be served. ``status`` is HTTP's, the text is the body, ``accepted`` what would have been."""

    def __init__(self, status: int, text: str, accepted: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.accepted = tuple(accepted)


def wants(headers: MultiMapping[str], protocol: str) -> bool:
    """Whether the client asks to go on in this protocol instead of HTTP."""
    upgrades = {word.lower() for word in _words(headers, "Upgrade")}
    return protocol.lower() in upgrades and "upgrade" in {word.lower() for word in _words(headers, "Connection")}


def spdy_version(headers: MultiMapping[str], served: Sequence[str]) -> str:
    """Return the first version that the client names and we serve; "" if it names none. Raises RequestRefusedError."""
    return _choose(_words(headers, VERSION_HEADER), served)


def subprotocol(headers: MultiMapping[str], served: Sequence[str]) -> str:
    """Return the WebSocket's subprotocol, "" if the client names none. Raises RequestRefusedError."""
    return _choose(_words(headers, "Sec-WebSocket-Protocol"), served)


def _choose(offered: Sequence[str], served: Sequence[str]) -> str:
    if not offered:
        return ""
    for name in offered:
        if name in served:
            return name
    text = f"unable to negotiate protocol: client supports {list(offered)}, server supports {list(served)}"
    raise RequestRefusedError(403, text, served)


def _words(headers: MultiMapping[str], name: str) -> list[str]:
    values = headers.getall(name, [])
    return [word for value in values for part in value.split(",") if (word := part.strip())]
