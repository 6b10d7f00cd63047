"""What a job directory holds when it is made: plan, script, environments and volume content. Pure.

Volume content has the layout of Kubernetes' atomic writer: the files in ``..<version>/``, ``..data`` a link to it, and
each top-level name a link through ``..data``; swapping one link changes all files of the volume together.
"""

import hashlib
import json
import re
from collections.abc import Sequence

from .contract import PodContent, VolumeFile
from .errors import UnsupportedFieldError
from .hosts.base import StagedEntry, StagedFile, StagedLink
from .jobdir import JobDir
from .runner.plan import Container, Plan, to_json

_HERE = JobDir("")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)


def _dumps(value: object) -> bytes:
    # In ASCII: a value may hold bytes that are no UTF-8, as lone surrogates (``resolution.objects.texts_of``).
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def content_version(files: Sequence[VolumeFile]) -> str:
    """Return the name of the directory that holds exactly these files."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        for part in (file.path.encode(), b"%o" % file.mode, file.data):
            digest.update(b"%d:" % len(part) + part)
    return f"..{digest.hexdigest()[:24]}"


def check_path(path: str, volume: str) -> str:
    """Return a volume file's path if it stays inside its volume; UnsupportedFieldError otherwise."""
    parts = path.split("/")
    if not path or any(part in {"", ".", ".."} for part in parts) or parts[0].startswith("..") or "\0" in path:
        raise UnsupportedFieldError(
            f"spec.volumes[name={volume}]", f"{path!r} is not a relative path inside the volume"
        )
    return path


def _check_name(name: str, kind: str) -> str:
    """Return a volume's or container's name if it is one name of one file, as the API server has checked before."""
    if not _NAME.fullmatch(name):
        raise UnsupportedFieldError(f"spec.{kind}[name={name}]", f"{name!r} is not a name that Kubernetes allows")
    return name


def volume_links(files: Sequence[VolumeFile]) -> tuple[StagedLink, ...]:
    """Return the top-level links of a volume, ``..data`` apart."""
    names = sorted({file.path.split("/", 1)[0] for file in files})
    return tuple(StagedLink(name, f"..data/{name}") for name in names)


def volume_files(volume: str, files: Sequence[VolumeFile]) -> tuple[StagedFile, ...]:
    """Return a volume's files, relative to its version directory."""
    return tuple(StagedFile(check_path(file.path, volume), file.data, file.mode) for file in files)


def _volume_entries(volume: str, files: Sequence[VolumeFile]) -> list[StagedEntry]:
    base, version = _HERE.volume(_check_name(volume, "volumes")), content_version(files)
    entries: list[StagedEntry] = [
        StagedFile(f"{base}/{version}/{file.path}", file.data, file.mode) for file in volume_files(volume, files)
    ]
    entries.append(StagedLink(f"{base}/..data", version))
    entries += [StagedLink(f"{base}/{link.path}", link.target) for link in volume_links(files)]
    return entries


def ephemeral_directory(container: Container, content: PodContent) -> tuple[StagedEntry, ...]:
    """Return what is staged of a container that is added to a running pod (``JobDir.ephemeral_container``)."""
    env = content.env.get(_check_name(container.name, "ephemeralContainers"), ())
    return (
        StagedFile("container.json", _dumps(to_json(container))),
        StagedFile("env.json", _dumps([to_json(entry) for entry in env])),
    )


def plan_data(plan: Plan) -> bytes:
    """Return what the plan's file holds (``JobDir.plan``)."""
    return _dumps(to_json(plan))


def job_directory(plan: Plan, script: str, content: PodContent) -> tuple[StagedEntry, ...]:
    """Return everything that the job directory holds before the job is submitted, by relative path."""
    entries: list[StagedEntry] = [
        StagedFile(_HERE.plan, plan_data(plan)),
        StagedFile(_HERE.script, script.encode(), 0o700),
    ]
    for container in plan.containers:
        env = content.env.get(container.name, ())
        _check_name(container.name, "containers")
        entries.append(StagedFile(_HERE.env(container.name), _dumps([to_json(entry) for entry in env])))
    if content.logins:
        entries.append(StagedFile(_HERE.logins, _dumps(to_json(content.logins))))
    for volume, files in content.volumes.items():
        entries += _volume_entries(volume, files)
    return tuple(entries)
