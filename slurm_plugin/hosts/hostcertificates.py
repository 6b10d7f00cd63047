"""Host certificates (OpenSSH's PROTOCOL.certkeys): may a machine that shows one be believed? Pure.

paramiko agrees on certificates and proves that the machine has the key in one, but does not look at what else stands
there. The signature is checked by ``cryptography``; here is what OpenSSH's own client asks beyond that.
"""

import base64
import datetime

import paramiko
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import (
    SSHCertificate,
    SSHCertificateType,
    SSHCertPublicKeyTypes,
    load_ssh_public_identity,
)

from .knownhosts import fingerprint, matches_pattern

SUFFIX = "-cert-v01@openssh.com"

# Fields of the public key, by the algorithm's first word: they stand between the nonce and what all certificates have.
_KEY_FIELDS = {"ssh": 1, "rsa": 2, "ecdsa": 2}
_ENDLESS = 2**64 - 1


class CertificateError(Exception):
    """Why a certificate is not believed."""


def load(blob: bytes) -> SSHCertificate:
    """Decode a certificate from SSH's own encoding. Raises CertificateError."""
    key_type = paramiko.Message(blob).get_text()
    try:
        found = load_ssh_public_identity(f"{key_type} ".encode() + base64.b64encode(blob))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"its certificate makes no sense: {error}") from error
    if not isinstance(found, SSHCertificate):
        raise CertificateError(f"it showed a {key_type} that is no certificate")
    return found


def authority(certificate: SSHCertificate) -> bytes:
    """Return the public key of the authority that signed, in SSH's own encoding."""
    return _encoded(certificate.signature_key())


def _encoded(key: SSHCertPublicKeyTypes) -> bytes:
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return base64.b64decode(line.split()[1])


def check_host(blob: bytes, key: bytes, *, name: str, authorities: frozenset[bytes], now: float) -> None:
    """Raise CertificateError unless one of the authorities says that ``key`` is the machine ``name``'s, at ``now`` (epoch seconds).

    A certificate without principals would be good for every machine; it is good for none here.
    """
    certificate = load(blob)
    if _encoded(certificate.public_key()) != key:
        raise CertificateError("its certificate is for another key")
    signer = authority(certificate)
    if signer not in authorities:
        raise CertificateError(f"its certificate is signed by another authority, {fingerprint(signer)}")
    if _signature_algorithm(blob) == "ssh-rsa":
        raise CertificateError("its certificate is signed with SHA-1, which can be forged")
    try:
        certificate.verify_cert_signature()
    except (InvalidSignature, UnsupportedAlgorithm) as error:
        raise CertificateError("the signature of its certificate is wrong") from error
    if certificate.type is not SSHCertificateType.HOST:
        raise CertificateError("its certificate is a user's")
    if certificate.critical_options:
        options = ", ".join(sorted(option.decode(errors="replace") for option in certificate.critical_options))
        raise CertificateError(f"its certificate has critical options that are not known: {options}")
    if (said := not_now(certificate, now)) is not None:
        raise CertificateError(f"its certificate {said}")
    principals = [principal.decode(errors="replace") for principal in certificate.valid_principals]
    if not any(matches_pattern(principal.lower(), name.lower()) for principal in principals):
        raise CertificateError(f"its certificate is for {', '.join(principals) or 'no machine'} and not for {name}")


def not_now(certificate: SSHCertificate, now: float) -> str | None:
    """Say why a certificate is not valid at ``now`` (epoch seconds); None if it is."""
    if now < certificate.valid_after:
        return f"is not valid before {_date(certificate.valid_after)}"
    if certificate.valid_before != _ENDLESS and now >= certificate.valid_before:
        return f"was valid until {_date(certificate.valid_before)}"
    return None


def _date(seconds: int) -> str:
    try:
        return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"second {seconds} of the epoch"


def _signature_algorithm(blob: bytes) -> str:
    """Return the name in the signature, the certificate's last field."""
    message = paramiko.Message(blob)
    key_type = message.get_text()
    for _ in range(1 + _KEY_FIELDS[key_type.split("-")[0] if not key_type.startswith("ssh-rsa") else "rsa"]):
        message.get_binary()  # the nonce, and the key
    message.get_bytes(8 + 4)  # serial number, type
    for _ in range(2):
        message.get_binary()  # key id, principals
    message.get_bytes(8 + 8)  # valid after and before
    for _ in range(4):
        message.get_binary()  # critical options, extensions, reserved, the authority's key
    return paramiko.Message(message.get_binary()).get_text()
