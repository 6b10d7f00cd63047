"""Names of images in registries, as a plan has them."""

import re
from typing import NamedTuple

_DIGEST = re.compile(r"sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})\Z")


class RegistryError(Exception):
    """The registry did not give what was asked; the message is for the user."""


class Reference(NamedTuple):
    """Where an image is: ``version`` is a tag or a digest."""

    scheme: str
    registry: str
    path: str
    version: str

    @property
    def repository(self) -> str:
        """The name without a version."""
        return "%s/%s" % (self.registry, self.path)


def parse_source(source: str) -> Reference:
    """Split ``docker://registry/path[:tag][@digest]``. ValueError for anything else. A digest wins over a tag."""
    scheme, separator, rest = source.partition("://")
    registry, slash, path = rest.partition("/")
    if scheme not in ("docker", "oras") or not separator or not slash:
        raise ValueError("not an image in a registry: %s" % source)
    path, _at, digest = path.partition("@")
    path, _colon, tag = path.partition(":")
    return Reference(scheme, registry, path, digest or tag or "latest")


def is_digest(version: str) -> bool:
    """Return whether a version is a digest."""
    return bool(_DIGEST.match(version))
