"""The certificate of the kubelet's port: asked of the cluster and renewed in time, or files that somebody else renews.

A request goes to the signer ``kubernetes.io/kubelet-serving``: organization exactly ``system:nodes``, common name
``system:node:NAME``, our address and name as alternatives. The cluster signs it once somebody approved it; nothing in
Kubernetes itself does (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/).
"""

import asyncio
import base64
import ipaddress
import logging
import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from slurm_plugin.errors import ConfigurationError

from ..config import CertificateFiles
from ..errors import KubeError, NotFoundError
from ..kube import Json, Kube

log = logging.getLogger(__name__)

_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_SIGNER = "kubernetes.io/kubelet-serving"
_POLL_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_PATIENCE_SECONDS = 20.0
_RETRY_SECONDS = 30.0
_FILES_SECONDS = 10.0
_RENEW_AT = (0.75, 0.85)  # of its life; jittered, lest all nodes ask at once
_LONGEST_SLEEP_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Chain:
    """Files for ``SSLContext.load_cert_chain``."""

    certificate: Path
    key: Path


def expiry(certificate: Path) -> float:
    """Return when a certificate that is in use expires, in seconds since the epoch."""
    return x509.load_pem_x509_certificates(certificate.read_bytes())[0].not_valid_after_utc.timestamp()


def certificate_request(node: str, address: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the PEM of a kubelet's certificate request."""
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
        x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
    ]
    names = [x509.DNSName(node), x509.IPAddress(ipaddress.ip_address(address))]
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(subject))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


class RequestedCertificate:
    """A certificate of the cluster's, kept in a directory (0700) as one 0600 file, key and chain."""

    def __init__(
        self, kube: Kube, node: str, address: str, directory: Path, *, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._kube = kube
        self._node = node
        self._address = address
        self._directory = directory
        self._file = directory / f"{node}-serving.pem"
        self._clock = clock or (lambda: datetime.now(tz=UTC))

    async def chains(self) -> AsyncIterator[Chain]:
        """Yield the certificate as soon as there is one, and each later one; never ends. Raises ConfigurationError."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"api.certificate_directory: {self._directory}: {error.strerror}") from error
        kept = self._kept()
        if kept is None:
            kept = await self._request_until_issued()
        while True:
            yield Chain(self._file, self._file)
            await self._sleep_until(self._renewal(kept))
            kept = await self._request_until_issued()

    def _kept(self) -> x509.Certificate | None:
        """Return the certificate that is there, if it is for this node and not yet to be renewed."""
        try:
            certificate = x509.load_pem_x509_certificates(self._file.read_bytes())[0]
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (OSError, ValueError, x509.ExtensionNotFound):
            return None
        fits = ipaddress.ip_address(self._address) in names.get_values_for_type(x509.IPAddress)
        return certificate if fits and self._renewal(certificate) > self._clock() else None

    def _renewal(self, certificate: x509.Certificate) -> datetime:
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        return certificate.not_valid_before_utc + life * random.uniform(*_RENEW_AT)  # noqa: S311  jitter, not a secret

    async def _sleep_until(self, when: datetime) -> None:
        # In steps and no Event: the wall clock counts, which may be set.
        while (seconds := (when - self._clock()).total_seconds()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(seconds, _LONGEST_SLEEP_SECONDS))

    async def _request_until_issued(self) -> x509.Certificate:
        while True:
            try:
                if (certificate := await self._request()) is not None:
                    return certificate
            except (KubeError, OSError) as error:
                log.warning("serving certificate: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _request(self) -> x509.Certificate | None:
        """Ask for a certificate and wait for it; None if the request was denied or is gone."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = base64.b64encode(certificate_request(self._node, self._address, key)).decode()
        usages = ["digital signature", "server auth"]
        body = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "slurmlet-"},
            "spec": {"request": request, "signerName": _SIGNER, "usages": usages},
        }
        created = await self._kube.create(_REQUESTS, body)
        chain = await self._wait(str(created["metadata"]["name"]))
        if chain is None:
            return None
        certificate = x509.load_pem_x509_certificates(chain)[0]
        self._keep(key, chain)
        log.info("serving certificate issued, valid until %s", certificate.not_valid_after_utc.isoformat())
        return certificate

    async def _wait(self, name: str) -> bytes | None:
        waited = 0.0
        for attempt in range(1_000_000):
            pause = _POLL_SECONDS[min(attempt, len(_POLL_SECONDS) - 1)]
            await asyncio.sleep(pause)
            waited += pause
            try:
                found = await self._kube.get(f"{_REQUESTS}/{name}")
            except NotFoundError:
                log.warning("certificate request %s is gone; asking again", name)
                return None
            if refused := _refusal(found):
                log.error("certificate request %s: %s", name, refused)
                return None
            if issued := (found.get("status") or {}).get("certificate"):
                return base64.b64decode(issued)
            if waited - pause < _PATIENCE_SECONDS <= waited:
                log.error("no logs until somebody approves it: kubectl certificate approve %s", name)
        return None

    def _keep(self, key: ec.EllipticCurvePrivateKey, chain: bytes) -> None:
        """Write key and chain at once, never readable by others."""
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        temporary = self._file.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(chain + secret)
        temporary.replace(self._file)


def _refusal(request: Json) -> str | None:
    for condition in (request.get("status") or {}).get("conditions") or ():
        if condition["type"] in {"Denied", "Failed"} and condition.get("status") != "False":
            return f"{condition['type']}: {condition.get('message') or condition.get('reason') or 'no reason given'}"
    return None


class CertificateFromFiles:
    """A certificate that somebody else renews. ``look_seconds``: how often to look whether they did."""

    def __init__(self, files: CertificateFiles, *, look_seconds: float = _FILES_SECONDS) -> None:
        self._files = files
        self._look_seconds = look_seconds

    async def chains(self) -> AsyncIterator[Chain]:
        """Yield the files, and again whenever they changed; never ends. Raises ConfigurationError.

        Files that are missing later are about to be replaced, or a volume to be mounted anew: they are waited for.
        """
        before: tuple[int, int] | None = None
        while True:
            try:
                now = (self._files.certificate_file.stat().st_mtime_ns, self._files.key_file.stat().st_mtime_ns)
            except OSError as error:
                words = f"api.certificate: {error.filename}: {error.strerror}"
                if before is None:
                    raise ConfigurationError(words) from error
                log.warning("%s; the old one stays", words)
                now = before
            if now != before:
                before = now
                yield Chain(self._files.certificate_file, self._files.key_file)
            await asyncio.sleep(self._look_seconds)
