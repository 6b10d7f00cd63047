import pytest
from multidict import CIMultiDict

from vkubelet.api.streaming.negotiation import (
    EXEC_SUBPROTOCOLS,
    EXEC_VERSIONS,
    RequestRefusedError,
    spdy_version,
    subprotocol,
    wants,
)


def offering(*values: str) -> CIMultiDict[str]:
    return CIMultiDict([("X-Stream-Protocol-Version", value) for value in values])


def test_the_clients_order_decides():
    assert spdy_version(offering("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io"), EXEC_VERSIONS) == (
        "v4.channel.k8s.io"
    )
    assert spdy_version(offering("channel.k8s.io,v4.channel.k8s.io"), EXEC_VERSIONS) == "channel.k8s.io"
    wanted = CIMultiDict({"Sec-WebSocket-Protocol": "v5.channel.k8s.io, v4.channel.k8s.io"})
    assert subprotocol(wanted, EXEC_SUBPROTOCOLS) == "v5.channel.k8s.io"


def test_a_client_that_names_none_speaks_the_first_version():
    assert spdy_version(CIMultiDict(), EXEC_VERSIONS) == ""
    assert subprotocol(CIMultiDict(), EXEC_SUBPROTOCOLS) == ""


def test_nothing_in_common_is_forbidden_and_says_what_is_served():
    with pytest.raises(RequestRefusedError) as error:
        spdy_version(offering("v9.channel.k8s.io"), EXEC_VERSIONS)
    assert (error.value.status, error.value.accepted) == (403, EXEC_VERSIONS)


@pytest.mark.parametrize(
    ("headers", "upgrades"),
    [
        ({"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}, True),
        ({"connection": "keep-alive, upgrade", "upgrade": "spdy/3.1"}, True),
        ({"Connection": "keep-alive", "Upgrade": "SPDY/3.1"}, False),
        ({"Connection": "Upgrade", "Upgrade": "SPDY/3.10"}, False),
        ({}, False),
    ],
)
def test_an_upgrade_is_asked_for_in_two_headers(headers, upgrades):
    assert wants(CIMultiDict(headers), "SPDY/3.1") is upgrades
