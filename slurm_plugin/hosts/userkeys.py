"""Our side of an SSH login: the keys and certificates that are shown, in order, and what is said when none is accepted.

Given keys come alone. Without any, those of the SSH agent, then the usual ones of ``~/.ssh``. A certificate
(``KEY-cert.pub`` beside the key, or a file that is named) goes before its plain key. Blocking.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.serialization import SSHCertificateType

from ..errors import HostError, TransportError
from .hostcertificates import SUFFIX, CertificateError, load, not_now

_USUAL = ("id_ed25519", "id_ecdsa", "id_rsa")
# sshd's MaxAuthTries is 6 where nobody changed it.
_USUAL_TRIES = 5


@dataclass(frozen=True, slots=True)
class UserKeys:
    """What is shown for ``user`` at ``place`` (as people write the login). ``certificate`` goes with each of ``files`` that it fits."""

    place: str
    user: str
    files: tuple[str, ...]
    certificate: str | None

    def check(self) -> None:
        """Raise HostError for a file that can't be read, before anybody is bothered."""
        for name in self.files:
            read_key(name, self.certificate)

    def authenticate(self, transport: paramiko.Transport, now: float) -> None:
        """Log in. HostError: none is accepted, or one can't be read; TransportError: the connection ended meanwhile. ``now``: epoch seconds."""
        refused: list[str] = []
        for name, key in self._candidates():
            if self._accepted(transport, name, key, refused):
                return
            refused.append(f"{name}{self._weakness(key, now)}")
        if not refused:
            raise HostError(
                f"nothing to log in to {self.place} with: no key is configured (key_file), the SSH agent "
                f"({os.environ.get('SSH_AUTH_SOCK') or 'SSH_AUTH_SOCK is not set'}) has none, nor is there one of "
                f"{', '.join(_USUAL)} in ~/.ssh"
            )
        raise HostError(
            f"{self.place} does not accept {', '.join(refused)}: the public key must be in {self.user}'s "
            "authorized_keys there, or its certificate be one that the site trusts"
        )

    def _accepted(self, transport: paramiko.Transport, name: str, key: paramiko.PKey, refused: list[str]) -> bool:
        try:
            left = transport.auth_publickey(self.user, key)
        except paramiko.BadAuthenticationType as error:
            ways = ", ".join(error.allowed_types)
            raise HostError(f"{self.place} takes no keys, only {ways}; nobody is there to type a password") from error
        except paramiko.AuthenticationException as error:
            if transport.is_active() and "timeout" not in str(error).lower():
                return False
            if len(refused) >= _USUAL_TRIES:
                raise HostError(
                    f"{self.place} hung up after {len(refused) + 1} keys, accepting none (sshd's MaxAuthTries): name the "
                    "right one with key_file"
                ) from error
            raise TransportError(f"the connection to {self.place} ended while logging in: {error}") from error
        if left:
            raise HostError(
                f"{self.place} accepts {name}, and wants {' or '.join(left)} besides; nobody is there to type it. The "
                "site must let this key in by itself"
            )
        return True

    def _candidates(self) -> Iterator[tuple[str, paramiko.PKey]]:
        if self.files:
            for name in self.files:
                yield from _both(name, read_key(name, self.certificate))
            return
        with contextlib.closing(paramiko.Agent()) as agent:
            for key in agent.get_keys():
                # An agent has certificates as keys of their own; paramiko would show what is in them as plain keys.
                key.public_blob = getattr(getattr(key, "inner_key", None), "public_blob", None)
                certificate = " with its certificate" if _certificate(key) else ""
                yield f"the SSH agent's key {key.comment or key.get_name()}{certificate}", key
        for usual in _USUAL:
            path = Path.home() / ".ssh" / usual
            if path.is_file():
                with contextlib.suppress(HostError):  # one with a passphrase is the agent's part
                    yield from _both(str(path), read_key(str(path), self.certificate))

    def _weakness(self, key: paramiko.PKey, now: float) -> str:
        """Say what is wrong with a certificate that was refused, as far as it shows from here."""
        blob = _certificate(key)
        if blob is None:
            return ""
        try:
            certificate = load(blob)
        except CertificateError as error:
            return f" ({error})"
        principals = [principal.decode(errors="replace") for principal in certificate.valid_principals]
        if certificate.type is not SSHCertificateType.USER:
            return " (it is a host's certificate)"
        if (said := not_now(certificate, now)) is not None:
            return f" (it {said}: renew it)"
        if principals and self.user not in principals:
            return f" (it is for {', '.join(principals)} and not for {self.user})"
        return ""


def _certificate(key: paramiko.PKey) -> bytes | None:
    """Return the certificate that is shown with a key, in SSH's own encoding."""
    if key.public_blob is not None:
        return key.public_blob.key_blob if key.public_blob.key_type.endswith(SUFFIX) else None
    # Where paramiko does not know what an agent has, the key is what the agent has.
    return key.asbytes() if key.get_name().endswith(SUFFIX) else None


def _both(name: str, key: paramiko.PKey) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield a key with its certificate, if it has one, then the plain key."""
    if key.public_blob is not None:
        yield f"the certificate of {name}", key
        key.public_blob = None
    yield name, key


def read_key(name: str, certificate: str | None = None) -> paramiko.PKey:
    """Read a private key and its certificate. Raises HostError naming the file and what is wrong with it."""
    try:
        key = paramiko.PKey.from_path(name)
    except FileNotFoundError as error:
        raise HostError(f"key file {name}: no such file") from error
    except OSError as error:
        raise HostError(f"key file {name}: {error.strerror}") from error
    except (TypeError, paramiko.PasswordRequiredException) as error:
        raise HostError(f"key file {name} has a passphrase: add it to an SSH agent, and leave key_file out") from error
    except (ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        raise HostError(f"key file {name} holds no private key: {error}") from error
    if certificate is not None:
        try:
            key.load_certificate(str(Path(certificate).resolve(strict=True)))
        except OSError as error:
            raise HostError(f"certificate file {certificate}: {error.strerror}") from error
        except (ValueError, paramiko.SSHException) as error:
            raise HostError(f"certificate file {certificate} does not fit the key {name}: {error}") from error
    return key
