"""Image names: what a pod calls an image, and where a Slurm site fetches it. Pure.

The grammar is distribution's (``reference.ParseNormalizedNamed``): ``busybox`` is ``docker.io/library/busybox:latest``.
Every pattern here separates its repetitions, so that no name takes more than linear time.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .config import RegistrySettings
from .errors import shorten
from .runner.plan import Image

_PATH = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DIGEST = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
_REFERENCE = re.compile(
    rf"(?P<path>{_PATH}(?:/{_PATH})*)(?::(?P<tag>[\w][\w.-]{{0,127}}))?(?:@(?P<digest>{_DIGEST}))?",
    re.ASCII,
)
_LABEL = r"[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?", re.ASCII)
_ID = re.compile(r"[0-9a-f]{64}")
_DEFAULT_REGISTRY = "docker.io"
_DEFAULT_REGISTRY_ONCE = "index.docker.io"
_LONGEST_PATH = 255
_SCHEMES = ("docker://", "oras://")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed image name. ``tag`` and ``digest`` are empty when absent."""

    registry: str
    path: str
    tag: str
    digest: str

    @property
    def text(self) -> str:
        """The whole name with what selects the image: the digest, which a tag beside it can't change, else the tag."""
        return f"{self.registry}/{self.path}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


def parse_reference(name: str) -> Reference:
    """Parse an image name as Kubernetes does. Raises ValueError, saying why, for an invalid one (InvalidImageName)."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, remainder = (_DEFAULT_REGISTRY if first == _DEFAULT_REGISTRY_ONCE else first), rest
    else:
        registry, remainder = _DEFAULT_REGISTRY, name
    match = _REFERENCE.fullmatch(remainder)
    if match is None or not _REGISTRY.fullmatch(registry) or _ID.fullmatch(name):
        raise ValueError(f"couldn't parse image name {shorten(name, 300)!r}: invalid reference format")
    path = match["path"]
    if registry == _DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    if len(path) > _LONGEST_PATH:
        raise ValueError(f"couldn't parse image name: its repository is longer than {_LONGEST_PATH} characters")
    digest = match["digest"] or ""
    return Reference(registry, path, match["tag"] or ("" if digest else "latest"), digest)


def pull_policy(name: str, asked: str | None) -> str:
    """Return the pull policy: the pod's, else Always for ``:latest`` or no tag, else IfNotPresent (Kubernetes' default)."""
    if asked:
        return asked
    try:
        reference = parse_reference(name)
    except ValueError:
        return "IfNotPresent"
    return "Always" if reference.tag == "latest" else "IfNotPresent"


def resolve(name: str, asked_policy: str | None, registries: Sequence[RegistrySettings]) -> Image:
    """Return what the runner fetches for an image name, through the site's mirrors.

    A path (``/sif/x.sif``, ``/cvmfs/…``) is itself. A name that is no valid reference keeps an empty source: the
    runner reports InvalidImageName, as a kubelet does, and the pod is not rejected.
    """
    if name.startswith("/"):
        return Image(name, name, asked_policy or "IfNotPresent", insecure=False)
    scheme, bare = next(((s, name[len(s) :]) for s in _SCHEMES if name.startswith(s)), (_SCHEMES[0], name))
    policy = pull_policy(bare, asked_policy)
    try:
        reference = parse_reference(bare)
    except ValueError:
        return Image(name, "", policy, insecure=False)
    setting = next((r for r in registries if r.registry == reference.registry), None)
    if setting is None:
        return Image(name, scheme + reference.text, policy, insecure=False)
    target = Reference(setting.mirror or reference.registry, reference.path, reference.tag, reference.digest)
    return Image(name, scheme + target.text, policy, insecure=setting.insecure)
