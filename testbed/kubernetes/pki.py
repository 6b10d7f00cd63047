"""Certificate authorities and the certificates they issue, kept as PEM files in one directory.

Elliptic-curve keys, because twenty RSA keys would take longer to make than the control plane takes to start. Nothing
here knows what a certificate is for beyond client or server; that is control_plane's.
"""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_YEARS = 365
_CA_LIFETIME = timedelta(days=10 * _YEARS)
_LEAF_LIFETIME = timedelta(days=1 * _YEARS)
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM; the key is readable by its owner only."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority whose files, and whose certificates' files, live in `directory`."""

    directory: Path
    name: str

    @property
    def pair(self) -> Pair:
        """The authority's own certificate and key."""
        return _pair(self.directory, self.name)

    def ensure(self) -> None:
        """Make the authority's self-signed certificate and key unless they are there."""
        if self.pair.certificate.exists():
            return
        key = _write_new_key(self.pair.key)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = (
            _builder(name, name, key.public_key(), _CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        _write(self.pair.certificate, _pem(builder.sign(key, hashes.SHA256())), 0o644)

    def client(self, name: str, common_name: str, organizations: Sequence[str] = ()) -> Pair:
        """A client certificate for user `common_name` in groups `organizations`, kept under `name`; made only once."""
        return self._issue(name, _subject(common_name, organizations), [ExtendedKeyUsageOID.CLIENT_AUTH], ())

    def server(self, name: str, alternative_names: Sequence[str], *, as_client: bool = False) -> Pair:
        """A server certificate for these DNS names and IP addresses, kept under `name`; made only once."""
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if as_client else [])]
        return self._issue(name, _subject(name, ()), usages, alternative_names)

    def _issue(
        self, name: str, subject: x509.Name, usages: Sequence[x509.ObjectIdentifier], alternative_names: Sequence[str]
    ) -> Pair:
        pair = _pair(self.directory, name)
        if pair.certificate.exists():
            return pair
        authority = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
        key = _write_new_key(pair.key)
        builder = (
            _builder(subject, authority.subject, key.public_key(), _LEAF_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(_public_key(authority)), critical=False)
        )
        if alternative_names:
            names = x509.SubjectAlternativeName([_alternative_name(text) for text in alternative_names])
            builder = builder.add_extension(names, critical=False)
        _write(pair.certificate, _pem(builder.sign(_read_key(self.pair.key), hashes.SHA256())), 0o644)
        return pair


def ensure_key_pair(directory: Path, name: str) -> Pair:
    """A bare key pair (service account tokens are signed with one): `certificate` names the public key. Made only once."""
    pair = Pair(directory / f"{name}.pub", directory / f"{name}.key")
    if not pair.certificate.exists():
        public = _write_new_key(pair.key).public_key()
        encoded = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        _write(pair.certificate, encoded, 0o644)
    return pair


def _pair(directory: Path, name: str) -> Pair:
    return Pair(directory / f"{name}.crt", directory / f"{name}.key")


def _subject(common_name: str, organizations: Sequence[str]) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def _alternative_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _public_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError(f"{certificate.subject} has a {type(key).__name__}; this directory is not one of ours")
    return key


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} is a {type(key).__name__}; this directory is not one of ours")
    return key


def _write_new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    # SEC 1 ("EC PRIVATE KEY"): kube-controller-manager takes its service account key in this form only.
    form = serialization.PrivateFormat.TraditionalOpenSSL
    _write(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), 0o600)
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, so that an interrupted `up` leaves nothing half-written for the next one to trust."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    partial.replace(path)
