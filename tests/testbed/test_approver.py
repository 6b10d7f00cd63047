"""The approver approves a kubelet's request for loopback addresses and objects to every other."""

import base64
import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from testbed.kubernetes.approver import objection

KEY = ec.generate_private_key(ec.SECP256R1())
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
NODE = "system:node:slurm"


def spec(
    *alternatives: x509.GeneralName,
    common_name: str = NODE,
    organizations: tuple[str, ...] = ("system:nodes",),
    username: str = NODE,
    usages: tuple[str, ...] = ("digital signature", "server auth"),
) -> dict[str, Any]:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*subject, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    request = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return {"request": base64.b64encode(request).decode(), "username": username, "usages": list(usages)}


@pytest.mark.parametrize(
    "wanted",
    [
        spec(LOOPBACK),
        spec(LOOPBACK, x509.DNSName("slurm"), x509.DNSName("localhost")),
        spec(x509.IPAddress(ipaddress.ip_address("::1"))),
        spec(LOOPBACK, usages=("key encipherment", "digital signature", "server auth")),
        spec(LOOPBACK, username="system:serviceaccount:slurmlet:slurmlet"),
    ],
)
def test_a_kubelets_request_is_approved(wanted: dict[str, Any]) -> None:
    assert objection(wanted) is None


@pytest.mark.parametrize(
    ("unwanted", "reason"),
    [
        (spec(), "no subject alternative name"),
        (spec(x509.IPAddress(ipaddress.ip_address("10.0.0.1"))), "10.0.0.1 is no loopback address"),
        (spec(LOOPBACK, x509.DNSName("example.org")), "example.org is neither"),
        (spec(LOOPBACK, x509.UniformResourceIdentifier("spiffe://a")), "UniformResourceIdentifier"),
        (spec(LOOPBACK, x509.RFC822Name("a@example.org")), "RFC822Name"),
        (spec(LOOPBACK, common_name="slurm"), "common name"),
        (spec(LOOPBACK, organizations=("system:nodes", "system:masters")), "organization"),
        (spec(LOOPBACK, organizations=()), "organization"),
        (spec(LOOPBACK, usages=("digital signature", "server auth", "client auth")), "usages"),
        (spec(LOOPBACK, username="system:node:another"), "may not ask on behalf of"),
        ({**spec(LOOPBACK), "request": base64.b64encode(b"nonsense").decode()}, "cannot be parsed"),
    ],
)
def test_any_other_request_is_objected_to(unwanted: dict[str, Any], reason: str) -> None:
    assert reason in (objection(unwanted) or "")


def test_an_address_that_the_caller_named_is_as_good_as_loopback() -> None:
    bridge = spec(x509.IPAddress(ipaddress.ip_address("172.18.0.1")))

    assert objection(bridge, ("172.18.0.1",)) is None
    assert objection(bridge, ("172.18.0.2",)) is not None
