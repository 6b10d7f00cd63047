"""Certificates say what they are for, verify against their authority, and are made only once."""

import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from testbed.kubernetes.files import Files
from testbed.kubernetes.pki import Authority, ensure_key_pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "pki", "some-ca")
    authority.ensure()
    return authority


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_client_certificate_names_user_and_groups(authority: Authority) -> None:
    certificate = load(authority.client("node", "system:node:a", ["system:nodes"]).certificate)

    assert certificate.subject.rfc4514_string() == "CN=system:node:a,O=system:nodes"
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate.verify_directly_issued_by(load(authority.pair.certificate))


def test_a_server_certificate_carries_its_names_and_addresses(authority: Authority) -> None:
    certificate = load(authority.server("api", ("localhost", "127.0.0.1")).certificate)

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]


def test_certificates_are_made_only_once(authority: Authority) -> None:
    first = authority.client("a", "a").certificate.read_bytes()
    own = authority.pair.certificate.read_bytes()

    authority.ensure()

    assert authority.client("a", "a").certificate.read_bytes() == first
    assert authority.pair.certificate.read_bytes() == own


def test_private_keys_are_for_their_owner_only(authority: Authority) -> None:
    pairs = [authority.pair, authority.client("a", "a"), ensure_key_pair(authority.directory, "service-account")]

    assert {stat.S_IMODE(pair.key.stat().st_mode) for pair in pairs} == {0o600}


def test_an_interrupted_issue_leaves_nothing_to_trust(authority: Authority) -> None:
    (authority.directory / "a.key").write_text("half a k")

    pair = authority.client("a", "a")

    assert b"PRIVATE KEY" in pair.key.read_bytes()


def test_kubelets_and_the_cluster_have_different_authorities(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.ensure()

    certificates = {load(ca.pair.certificate).subject for ca in (files.cluster_ca, files.kubelet_serving_ca)}
    assert len(certificates) == 2
    load(files.kubelet_client.certificate).verify_directly_issued_by(load(files.cluster_ca.pair.certificate))
