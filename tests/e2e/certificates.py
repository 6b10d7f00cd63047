"""Certificates as the tests need them: serving ones of a chosen life, and a client's that nobody vouches for."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from testbed.kubernetes.files import Files
from testbed.kubernetes.pki import Pair
from testbed.paths import Layout


@dataclass(frozen=True, slots=True)
class ServingAuthority:
    """The CA that the testbed's API server believes kubelets' serving certificates of."""

    pair: Pair

    def write(self, file: Path, node: str, address: str, *, since: datetime, until: datetime) -> int:
        """Write a node's serving certificate and key into one file, as the agent keeps them; the serial number."""
        issuer = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
        key = serialization.load_pem_private_key(self.pair.key.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        names = [x509.DNSName(node), x509.IPAddress(ipaddress.ip_address(address))]
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
            ]
        )
        return _write(file, subject, issuer.subject, key, (since, until), names)


def serving_authority() -> ServingAuthority:
    """That of the testbed that is up."""
    return ServingAuthority(Files(Layout.from_environment().kubernetes).kubelet_serving_ca.pair)


def self_signed_client(file: Path, group: str) -> Path:
    """Write a client certificate that claims a group, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group), x509.NameAttribute(NameOID.COMMON_NAME, "mallory")]
    )
    now = datetime.now(UTC)
    _write(file, subject, subject, key, (now - timedelta(hours=1), now + timedelta(hours=1)), [], own=key)
    return file


def _write(
    file: Path,
    subject: x509.Name,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    life: tuple[datetime, datetime],
    names: list[x509.GeneralName],
    *,
    own: ec.EllipticCurvePrivateKey | None = None,
) -> int:
    key = own or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(life[0])
        .not_valid_after(life[1])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    partial = file.with_suffix(".partial")
    partial.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    partial.chmod(0o600)
    partial.replace(file)
    return certificate.serial_number
