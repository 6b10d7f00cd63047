"""Where the data of a claim is: the site's rules on PersistentVolumes, applied. Pure.

Every value of a PersistentVolume is hostile here: whoever may make one must not reach what no rule was meant for. A rule
ends inside the directory that its path begins with (``VolumeRule.directory``), whatever the values are.
"""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .config import TEMPLATE_NAME, VolumeRule
from .errors import PolicyError
from .pod import Pod
from .refusals import check_apart


@dataclass(frozen=True, slots=True)
class PersistentVolume:
    """The PersistentVolume that a claim is bound to, as far as rules look at it. What it has not is empty.

    ``read_only``: the PersistentVolume itself says so. ``source`` is Kubernetes' word for what it is: ``nfs``, ``csi`` …
    """

    namespace: str
    claim: str
    name: str
    source: str
    storage_class: str = ""
    read_only: bool = False
    nfs_server: str = ""
    path: str = ""
    driver: str = ""
    handle: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of the site's file system."""

    path: str
    read_only: bool


def places_of(
    pod: Pod, claims: Mapping[str, PersistentVolume], rules: Sequence[VolumeRule], *, root: str
) -> dict[str, Place]:
    """Return where the pod's claims are, by volume. PolicyError names the field; none may reach ``root``."""
    places = {}
    for index, volume in enumerate(pod.spec.volumes):
        claim = volume.persistent_volume_claim
        if claim is None and volume.ephemeral is None:
            continue
        path = f"spec.volumes[{index}].{'ephemeral' if claim is None else 'persistentVolumeClaim'}"
        if volume.name not in claims:
            raise PolicyError(path, "the PersistentVolume behind it is not known")
        place = place_of(claims[volume.name], rules, path)
        check_apart(place.path, root, path)
        places[volume.name] = replace(place, read_only=place.read_only or (claim is not None and claim.read_only))
    return places


def place_of(volume: PersistentVolume, rules: Sequence[VolumeRule], field_path: str) -> Place:
    """Return where a volume's data is by the first rule that matches. PolicyError names ``field_path``."""
    for rule in rules:
        if (rest := _match(volume, rule)) is not None:
            return Place(_path(volume, rule, rest, field_path), rule.read_only or volume.read_only)
    kind = f"{volume.source} {volume.nfs_server or volume.driver} {volume.path or volume.handle}".strip()
    message = f"no rule of the site (pods.persistent_volumes) says where PersistentVolume {volume.name} is ({kind})"
    raise PolicyError(field_path, message)


def _match(volume: PersistentVolume, rule: VolumeRule) -> str | None:
    """Return what the volume's path has beyond the rule's (may be empty), None if the rule is not for this volume."""
    if rule.storage_class is not None and rule.storage_class != volume.storage_class:
        return None
    if rule.nfs is not None:
        return _below(volume.path, rule.nfs.path) if volume.nfs_server == rule.nfs.server else None
    if rule.host_path is not None:
        return _below(volume.path, rule.host_path) if volume.source in {"hostPath", "local"} else None
    if rule.csi is not None:
        same = all(volume.attributes.get(name) == value for name, value in rule.csi.attributes.items())
        return "" if volume.driver == rule.csi.driver and same else None
    return ""


def _below(path: str, directory: str) -> str | None:
    """Return a path relative to a directory that it is, or lies below, by whole names; None if it does not."""
    parts, above = ([name for name in text.split("/") if name not in {"", "."}] for text in (path, directory))
    return "/".join(parts[len(above) :]) if parts[: len(above)] == above else None


def _path(volume: PersistentVolume, rule: VolumeRule, rest: str, field_path: str) -> str:
    value = _values(volume, rest, field_path)
    # Outside the braces the template is the administrator's; what is put in has no "..", nor can it make one up.
    path = TEMPLATE_NAME.sub(lambda match: value(match[1]), rule.path)
    names = [name for name in path.split("/") if name not in {"", "."}]
    result = "/" + "/".join(names)
    if ".." in names or posixpath.commonpath([result, rule.directory]) != posixpath.normpath(rule.directory):
        raise PolicyError(field_path, f"PersistentVolume {volume.name} leads out of {rule.directory}")
    return result


def _values(volume: PersistentVolume, rest: str, field_path: str) -> Callable[[str], str]:
    """Return the function from a name in a template to its value. It raises PolicyError for what must not be one."""
    known = {
        "rest": rest, "handle": volume.handle, "namespace": volume.namespace, "claim": volume.claim,
        "volume": volume.name, "storage_class": volume.storage_class,
    }  # fmt: skip

    def value(name: str) -> str:
        text = known[name] if name in known else volume.attributes.get(name.removeprefix("attribute."), "")
        parts = [part for part in text.split("/") if part not in {"", "."}]
        if ".." in parts or not text.isprintable():
            message = f"{{{name}}} of PersistentVolume {volume.name} is {text!r}, which no path of a rule may hold"
            raise PolicyError(field_path, message)
        if not parts and name != "rest":
            # Else one volume without it would be the directory of all the others.
            raise PolicyError(field_path, f"PersistentVolume {volume.name} has no {{{name}}}, which the rule needs")
        return "/".join(parts)

    return value
