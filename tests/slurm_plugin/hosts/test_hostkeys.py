"""Which machines are believed: their keys, and certificates made here to be wrong in one thing each."""

import base64
import functools

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder, SSHCertificateType

from slurm_plugin.errors import HostError
from slurm_plugin.hosts.hostkeys import HostKeys
from slurm_plugin.hosts.knownhosts import parse

Private = Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
POSSIBLE = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
NOW = 1_000_000
HOST, CA, OTHER = (Ed25519PrivateKey.generate() for _ in range(3))


def public(key: Private) -> str:
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(*form).decode()


def plain(key: Private) -> paramiko.PKey:
    kind, data = public(key).split()
    return paramiko.PKey.from_type_string(kind, base64.b64decode(data))


def certificate(
    key: Private = HOST,
    ca: Private = CA,
    *,
    kind: SSHCertificateType = SSHCertificateType.HOST,
    principals: tuple[bytes, ...] = (b"login",),
    valid: tuple[int, int] = (NOW - 10, NOW + 10),
    critical: bytes | None = None,
) -> paramiko.PKey:
    """What paramiko has in hand once a machine has proved that the key in a certificate is its own."""
    builder = SSHCertificateBuilder().public_key(key.public_key()).type(kind).serial(1).key_id(b"test")
    builder = builder.valid_after(valid[0]).valid_before(valid[1])
    builder = builder.valid_principals(list(principals)) if principals else builder.valid_for_all_principals()
    if critical is not None:
        builder = builder.add_critical_option(critical, b"x")
    shown = plain(key)
    shown.load_certificate(builder.sign(ca).public_bytes().decode())
    return shown


def known(text: str, *, port: int = 22) -> HostKeys:
    return HostKeys("login", port, ("known",), parse(text, "known"))


def refusal(keys: HostKeys, key: paramiko.PKey) -> str:
    with pytest.raises(HostError) as refused:
        keys.verify(key, NOW)
    return str(refused.value)


def test_a_known_key_is_believed_and_one_of_several_will_do() -> None:
    known(f"login {public(OTHER)}\nlogin {public(HOST)}\n").verify(plain(HOST), NOW)


def test_another_key_is_a_changed_one_and_the_line_is_named() -> None:
    words = refusal(known(f"# x\nlogin {public(OTHER)}\n"), plain(HOST))
    assert "the host key of login has changed" in words
    assert "(known, line 2)" in words
    assert words.count("SHA256:") == 2


def test_a_key_is_known_for_its_port() -> None:
    words = refusal(known(f"login {public(HOST)}\n", port=2222), plain(HOST))
    assert "known has no line for [login]:2222" in words
    known(f"[login]:2222 {public(HOST)}\n", port=2222).verify(plain(HOST), NOW)


def test_a_revoked_key_is_refused_though_it_is_known() -> None:
    words = refusal(known(f"login {public(HOST)}\n@revoked * {public(HOST)}\n"), plain(HOST))
    assert "is revoked (known, line 2)" in words


def test_a_revoked_authority_vouches_for_nobody() -> None:
    words = refusal(known(f"@cert-authority * {public(CA)}\n@revoked * {public(CA)}\n"), certificate())
    assert "is revoked (known, line 2)" in words


@functools.cache
def private(kind: str, whose: str) -> Private:
    """A key of a kind; one of RSA takes a tenth of a second to make."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "ecdsa":
        return ec.generate_private_key(ec.SECP256R1() if whose == "authority" else ec.SECP384R1())
    return Ed25519PrivateKey.generate()


KINDS = ["ed25519", "rsa", "ecdsa"]


@pytest.mark.parametrize("ca_kind", KINDS)
@pytest.mark.parametrize("host_kind", KINDS)
@pytest.mark.parametrize("port", [22, 2222])
def test_an_authority_vouches_for_a_machine_at_every_port(ca_kind: str, host_kind: str, port: int) -> None:
    ca, host = private(ca_kind, "authority"), private(host_kind, "machine")
    known(f"@cert-authority l* {public(ca)}\n", port=port).verify(certificate(host, ca), NOW)


@pytest.mark.parametrize(
    ("shown", "because"),
    [
        (certificate(ca=OTHER), "signed by another authority"),
        (certificate(kind=SSHCertificateType.USER), "is a user's"),
        (certificate(principals=(b"elsewhere", b"log")), "is for elsewhere, log and not for login"),
        (certificate(principals=()), "is for no machine"),
        (certificate(valid=(NOW - 10, NOW)), "was valid until"),
        (certificate(valid=(NOW + 1, NOW + 10)), "is not valid before"),
        (certificate(critical=b"verify-required"), "critical options that are not known: verify-required"),
        (plain(HOST), "it showed no certificate"),
    ],
)
def test_a_certificate_that_does_not_do_says_why(shown: paramiko.PKey, because: str) -> None:
    words = refusal(known(f"@cert-authority * {public(CA)}\n"), shown)
    assert because in words
    assert "(the authority that is trusted: known, line 1)" in words
    assert "Ask the site for a valid one" in words


def test_an_endless_certificate_and_patterns_of_names() -> None:
    endless = certificate(valid=(0, 2**64 - 1), principals=(b"elsewhere", b"LOG*"))
    known(f"@cert-authority * {public(CA)}\n").verify(endless, NOW)


def test_a_forged_signature_is_refused() -> None:
    shown = certificate()
    assert shown.public_blob is not None
    blob = shown.public_blob.key_blob
    shown.public_blob.key_blob = blob.replace(b"login", b"log1n")
    assert "the signature of its certificate is wrong" in refusal(known(f"@cert-authority * {public(CA)}\n"), shown)


def test_a_certificate_of_another_key_is_refused() -> None:
    shown = certificate()
    shown.public_blob = certificate(OTHER).public_blob
    assert "is for another key" in refusal(known(f"@cert-authority * {public(CA)}\n"), shown)


def test_a_signature_with_sha_1_is_refused() -> None:
    authority = rsa.generate_private_key(65537, 2048)
    shown = certificate(ca=authority)
    assert shown.public_blob is not None
    good = shown.public_blob.key_blob
    signature = good[good.rindex(b"rsa-sha2-") - 8 :]
    weak = b"\0\0\0\x07ssh-rsa" + signature[4 + 4 + len("rsa-sha2-512") :]
    shown.public_blob.key_blob = good[: -len(signature)] + len(weak).to_bytes(4, "big") + weak
    assert "SHA-1" in refusal(known(f"@cert-authority * {public(authority)}\n"), shown)


def test_a_known_key_is_believed_whatever_its_certificate() -> None:
    known(f"@cert-authority * {public(OTHER)}\nlogin {public(HOST)}\n").verify(certificate(), NOW)


def test_the_key_that_is_known_is_asked_for_first_and_certificates_only_of_authorities() -> None:
    names = known(f"login {public(rsa.generate_private_key(65537, 2048))}\n").algorithms(POSSIBLE)
    assert names == ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519", "ecdsa-sha2-nistp256")
    names = known(f"@cert-authority * {public(CA)}\n").algorithms(POSSIBLE)
    assert names == tuple(f"{name}-cert-v01@openssh.com" for name in POSSIBLE) + POSSIBLE
    assert known(f"@cert-authority elsewhere {public(CA)}\n").algorithms(POSSIBLE) == POSSIBLE
