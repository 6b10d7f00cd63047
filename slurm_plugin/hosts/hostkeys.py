"""Is this the machine that it should be? What known_hosts says of it, and what it shows. There is no way around this."""

from dataclasses import dataclass

import paramiko

from ..errors import HostError
from .hostcertificates import SUFFIX, CertificateError, authority, check_host, load
from .knownhosts import Line, fingerprint

# Certificates' key types are asked for only where an authority is trusted: all else would hide the plain key.
_RSA = ("rsa-sha2-512", "rsa-sha2-256")


def known_name(address: str, port: int) -> str:
    """Return a machine as known_hosts files spell it."""
    return address if port == 22 else f"[{address}]:{port}"


@dataclass(frozen=True, slots=True)
class HostKeys:
    """What is known of one machine. ``files`` are for messages, ``lines`` all of theirs."""

    address: str
    port: int
    files: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def name(self) -> str:
        """The machine as known_hosts files spell it."""
        return known_name(self.address, self.port)

    def _marked(self, marker: str) -> list[Line]:
        # An authority's certificates name machines without ports, so that a line for the machine is one for all its ports.
        names = {self.name} if not marker else {self.name, self.address}
        return [line for line in self.lines if line.marker == marker and any(line.speaks_of(name) for name in names)]

    def algorithms(self, possible: tuple[str, ...]) -> tuple[str, ...]:
        """Order the key types that may be asked for: a server shows but one of its keys, and it should be one that is known."""
        known = {line.key_type for line in self._marked("")}
        first = tuple(name for name in possible if name in known or (name in _RSA and "ssh-rsa" in known))
        plain = first + tuple(name for name in possible if name not in first)
        certificates = tuple(f"{name}{SUFFIX}" for name in plain) if self._marked("@cert-authority") else ()
        return certificates + plain

    def verify(self, key: paramiko.PKey, now: float) -> None:
        """Raise HostError, with what to do, unless the key or its certificate is that of the machine. ``now``: epoch seconds."""
        plain = key.asbytes()  # without the certificate, if it showed one
        certificate = None if key.public_blob is None else key.public_blob.key_blob
        self._refuse_revoked(plain, certificate)
        known = self._marked("")
        if any(line.key == plain for line in known):
            return
        shown = f"it showed {key.get_name()} {fingerprint(plain)}"
        authorities = self._marked("@cert-authority")
        because = ""
        if certificate is not None:
            try:
                trusted = frozenset(line.key for line in authorities)
                check_host(certificate, plain, name=self.address, authorities=trusted, now=now)
            except CertificateError as error:
                because = str(error)
            else:
                return
        elif authorities:
            because = "it showed no certificate"
        self._refuse(shown, known, because, authorities)

    def _refuse_revoked(self, plain: bytes, certificate: bytes | None) -> None:
        shown = {plain}
        if certificate is not None:
            try:
                shown.add(authority(load(certificate)))
            except CertificateError as error:
                raise HostError(f"the host key of {self.name} is not believed: {error}") from error
        for line in self._marked("@revoked"):
            if line.key in shown:
                raise HostError(f"the host key of {self.name}, {line.fingerprint}, is revoked ({line.place})")

    def _refuse(self, shown: str, known: list[Line], because: str, authorities: list[Line]) -> None:
        files = ", ".join(self.files)
        if authorities:
            places = "; ".join(line.place for line in authorities)
            shown = f"{shown}, and {because} (the authority that is trusted: {places})"
        if known:
            expected = " or ".join(f"{line.fingerprint} ({line.place})" for line in known)
            raise HostError(
                f"the host key of {self.name} has changed: {shown}, expected was {expected}. Somebody may be in between; "
                "if the site confirms the new key, replace that line"
            )
        if authorities:
            raise HostError(
                f"the host certificate of {self.name} is not believed: {shown}. Ask the site for a valid one, or for its "
                f"authority's present key, which goes into {files}"
            )
        raise HostError(
            f"the host key of {self.name} is not known: {shown}, and {files} has no line for {self.name}. Compare the "
            "fingerprint with the one the site publishes, then add the key there"
        )
