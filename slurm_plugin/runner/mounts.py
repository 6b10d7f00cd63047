"""What a container sees of the pod's volumes: its binds, with subPath and subPathExpr resolved.

Rules: Kubernetes 1.36 ``pkg/kubelet/kubelet_pods.go`` (makeMounts) and ``pkg/volume/util/subpath``. A subPath of content
from the API server is a copy, taken when the container starts: such a mount is never updated, and the original's files
may go away under it when the content is swapped. Of any other subPath it is noted what it is (device and inode), for
until the runtime has mounted it another container may put a link in its place: ``running`` compares before the command runs.
"""

import contextlib
import os
import stat
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

from . import plan
from .expand import expand
from .runtimes import Bind
from .volumes import VolumeError, remove_tree

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC  # to a link itself; no further step leads from there


class Sources(NamedTuple):
    """Where mounts come from. ``places``: each volume's; ``copies``: a private directory of this run of the container."""

    volumes: Tuple[plan.Volume, ...]
    places: Mapping[str, str]
    copies: str


def binds(container: plan.Container, sources: Sources, values: Mapping[str, str]) -> Tuple[Bind, ...]:
    """Return a container's mounts, outer paths first. ``values``: its environment. Raises VolumeError, OSError."""
    kinds = {volume.name: volume.kind for volume in sources.volumes}
    remove_tree(sources.copies)  # of an attempt that failed half-way
    found: List[Bind] = []
    for index, mount in enumerate(sorted(container.mounts, key=lambda each: each.mount_path.rstrip("/").count("/"))):
        content = kinds[mount.volume] == plan.CONTENT
        place = sources.places[mount.volume]
        below = _below(mount, values)
        identity: Tuple[int, ...] = ()
        if below and content:
            place = _copy(_inside(place, below, mount), os.path.join(sources.copies, str(index)))
        elif below:
            place, identity = _made(place, below, mount)
        # ConfigMaps, Secrets and the like are read-only in Kubernetes, whatever the mount says.
        found.append(Bind(place, mount.mount_path, mount.read_only or content, identity))
    return tuple(found)


def with_own(
    found: Tuple[Bind, ...], container: plan.Container, message_path: str, hosts_file: str
) -> Tuple[Bind, ...]:
    """Return mounts with those of every container: the place of its last words, and the pod's /etc/hosts.

    What the pod itself mounts there stays. In the container's own /dev no file of the node can be mounted.
    """
    targets = {bind.target for bind in found}
    message_target = container.termination_message_path
    for extra in (
        Bind(message_path, "" if message_target.startswith("/dev/") else message_target, False),
        Bind(hosts_file, "/etc/hosts", True),
    ):
        if extra.source and extra.target and extra.target not in targets:
            found += (extra,)
    return found


class _Present(Dict[str, str]):
    """An environment that notes what it was asked for and has not, or has empty."""

    def __init__(self, values: Mapping[str, str]) -> None:
        dict.__init__(self, values)
        self.missing: List[str] = []

    def get(self, name: str, default: Optional[str] = None) -> str:  # type: ignore[override]
        value = dict.get(self, name, "")
        if not value:
            self.missing.append(name)
        return value or default or ""


def _below(mount: plan.Mount, values: Mapping[str, str]) -> str:
    """Return the path in the volume that is mounted; empty is the volume itself."""
    path = mount.sub_path
    if mount.sub_path_expr:
        present = _Present(values)
        path = expand(mount.sub_path, present)
        if present.missing:
            raise VolumeError(
                "failed to expand subPathExpr %r of volume %r: missing value for %s"
                % (mount.sub_path, mount.volume, ", ".join(sorted(set(present.missing))))
            )
    if path.startswith("/"):
        raise VolumeError("error SubPath `%s` must not be an absolute path" % path)
    if ".." in path.split("/"):
        raise VolumeError("unable to provision SubPath `%s`: must not contain '..'" % path)
    if "\0" in path:
        raise VolumeError("unable to provision SubPath %r: holds a NUL" % path)
    return path


def _inside(root: str, below: str, mount: plan.Mount) -> str:
    """Return the real path of something in a volume. VolumeError if links lead out of it, or it is not there."""
    real_root = os.path.realpath(root)
    path = os.path.realpath(os.path.join(real_root, below))
    if path != real_root and not path.startswith(real_root + os.sep):
        raise VolumeError('subPath "%s" of volume "%s" leads out of the volume' % (below, mount.volume))
    if not os.path.exists(path):
        raise VolumeError('subPath "%s" is not in volume "%s"' % (below, mount.volume))
    return path


def _made(root: str, below: str, mount: plan.Mount) -> Tuple[str, Tuple[int, int]]:
    """Return a subPath's real path, and its identity, made as directories as far as it is missing.

    Each name is made and entered below the one before, following no link: another container of the pod may write there.
    """
    real_root = os.path.realpath(root)
    path = os.path.realpath(os.path.join(real_root, below))
    there = os.path.exists(path)
    if there:
        path = _inside(root, below, mount)
    elif not path.startswith(real_root + os.sep):
        raise VolumeError('subPath "%s" of volume "%s" leads out of the volume' % (below, mount.volume))
    at = os.open(real_root, _STEP)
    try:
        for name in os.path.relpath(path, real_root).split(os.sep):
            if not there:
                with contextlib.suppress(FileExistsError):  # it is entered either way, if it is a directory
                    os.mkdir(name, 0o750, dir_fd=at)
            inner = os.open(name, _STEP, dir_fd=at)
            os.close(at)
            at = inner
        found = os.fstat(at)
        if stat.S_ISLNK(found.st_mode):
            raise VolumeError('subPath "%s" of volume "%s" was swapped for a link' % (below, mount.volume))
    except OSError as error:
        raise VolumeError('subPath "%s" of volume "%s" can\'t be made: %s' % (below, mount.volume, error)) from error
    finally:
        os.close(at)
    return path, (found.st_dev, found.st_ino)


def _copy(source: str, target: str) -> str:
    """Copy a file or directory with its modes."""
    import shutil  # which few pods need

    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    if os.path.isdir(source):
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
    return target
