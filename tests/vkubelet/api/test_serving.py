import asyncio
import base64
import datetime
import ipaddress
import ssl
import stat
from contextlib import aclosing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from slurm_plugin.errors import ConfigurationError
from tests.vkubelet.kube import FakeKube
from vkubelet.api.serving import CertificateFromFiles, RequestedCertificate
from vkubelet.config import CertificateFiles

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
KEY = ec.generate_private_key(ec.SECP256R1())


class Clock:
    now = datetime.datetime.now(tz=datetime.UTC)

    def __call__(self) -> datetime.datetime:
        return self.now


class Signer:
    """Signs every request at once, for an hour; keeps the requests."""

    def __init__(self, kube: FakeKube, clock: Clock) -> None:
        self.requests: list[x509.CertificateSigningRequest] = []
        self._kube = kube
        self._clock = clock
        kube.creations[REQUESTS] = self.create

    def create(self, body: dict) -> dict:
        request = x509.load_pem_x509_csr(base64.b64decode(body["spec"]["request"]))
        self.requests.append(request)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(name)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._clock.now)
            .not_valid_after(self._clock.now + datetime.timedelta(hours=1))
        )
        for extension in request.extensions:
            certificate = certificate.add_extension(extension.value, extension.critical)
        pem = certificate.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        body["status"] = {"certificate": base64.b64encode(pem).decode()}
        body["metadata"]["name"] = f"csr-{len(self.requests)}"
        return self._kube.put(f"{REQUESTS}/csr-{len(self.requests)}", body)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def signer(kube: FakeKube, clock: Clock) -> Signer:
    return Signer(kube, clock)


def source(kube: FakeKube, directory: Path, clock: Clock, address: str = "10.0.0.1") -> RequestedCertificate:
    return RequestedCertificate(kube, "slurm", address, directory, clock=clock)  # type: ignore[arg-type]


async def first(certificates: RequestedCertificate) -> Path:
    async with aclosing(certificates.chains()) as chains:  # type: ignore[type-var]
        return (await anext(chains)).certificate


async def test_the_request_is_a_kubelets_and_the_key_is_private(kube, signer, clock, tmp_path):
    path = await first(source(kube, tmp_path / "pki", clock))
    (request,) = signer.requests
    subject = {attribute.oid: attribute.value for attribute in request.subject}
    assert subject == {NameOID.ORGANIZATION_NAME: "system:nodes", NameOID.COMMON_NAME: "system:node:slurm"}
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.1")]
    (_, _, body) = kube.writes[0]
    assert body["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
    assert body["spec"]["usages"] == ["digital signature", "server auth"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, path)


async def test_a_good_certificate_is_used_again_and_one_for_another_address_is_not(kube, signer, clock, tmp_path):
    await first(source(kube, tmp_path, clock))
    await first(source(kube, tmp_path, clock))
    assert len(signer.requests) == 1
    await first(source(kube, tmp_path, clock, "10.0.0.2"))
    assert len(signer.requests) == 2


async def test_an_old_certificate_is_renewed_while_it_is_still_good(kube, signer, clock, tmp_path):
    await first(source(kube, tmp_path, clock))
    clock.now += datetime.timedelta(minutes=52)
    await first(source(kube, tmp_path, clock))
    assert len(signer.requests) == 2


async def test_it_is_renewed_while_running(kube, signer, clock, tmp_path):
    async with aclosing(source(kube, tmp_path, clock).chains()) as chains, asyncio.timeout(60):
        await anext(chains)
        clock.now += datetime.timedelta(minutes=52)
        await anext(chains)
    assert len(signer.requests) == 2


async def test_files_that_are_missing_are_named(tmp_path):
    files = CertificateFiles(certificate_file=tmp_path / "tls.crt", key_file=tmp_path / "tls.key")
    with pytest.raises(ConfigurationError, match=r"tls\.crt"):
        await anext(CertificateFromFiles(files).chains())
