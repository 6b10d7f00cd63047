"""Which user name and password a registry gets for an image. Pure.

Rules: ``pkg/credentialprovider/keyring.go`` of Kubernetes 1.36: a key of a pull secret is a registry, perhaps with a path
that the image's name begins with; ``*`` stands for characters of one label of the host's name. The more exact key comes
first. Unlike there, what is compared is where the image is fetched: a mirror never sees the password of what it mirrors.
"""

import fnmatch
from typing import Any, List, NamedTuple, Sequence, Tuple

_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


class Login(NamedTuple):
    """An entry of a pull secret. ``pattern`` is its key without a scheme: ``registry.example.org/team``."""

    pattern: str
    username: str
    password: str


def pattern_of(key: str) -> str:
    """Return a pull secret's key without scheme, API version and final slashes."""
    for scheme in ("https://", "http://"):
        if key.startswith(scheme):
            key = key[len(scheme) :]
    host, slash, path = key.partition("/")
    for version in ("v1/", "v2/"):
        if (path + "/").startswith(version):
            path = path[len(version) :]
    return (host + slash + path).rstrip("/")


def matching(logins: Sequence[Login], registry: str, path: str) -> Tuple[Login, ...]:
    """Return the logins that are for an image, the most exact first."""
    found: List[Login] = [login for login in logins if _matches(login.pattern, registry, path)]
    return tuple(sorted(found, key=lambda login: login.pattern, reverse=True))


def _matches(pattern: str, registry: str, path: str) -> bool:
    host, _slash, prefix = pattern.partition("/")
    if not path.startswith(prefix):
        return False
    if host in _DOCKER_HUB:
        return registry == "docker.io"
    wanted, port = _host_and_port(host)
    given, given_port = _host_and_port(registry)
    if port != given_port or len(wanted) != len(given):
        return False
    return all(fnmatch.fnmatchcase(label, glob) for label, glob in zip(given, wanted))


def _host_and_port(host: str) -> Tuple[List[str], str]:
    name, _colon, port = host.partition(":")
    return name.split("."), port


def logins_from_json(data: Any) -> Tuple[Login, ...]:
    """Read what was written for the runner. TypeError, ValueError: it is broken."""
    return tuple(Login(**{name: str(value) for name, value in entry.items()}) for entry in data)
