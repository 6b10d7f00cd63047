"""Where a pod's volumes are on the node; what a container sees of them is ``mounts``'.

Content that comes from the API server lies in the job directory already; what is made here is emptyDir (node-local,
removed at the end) and the checks and creations of hostPath types. What emptyDirs hold is measured here too.
"""

import os
import stat
import sys
from typing import Dict

from slurm_plugin.hostagent import removal
from slurm_plugin.jobdir import JobDir

from . import plan
from .node import node_name

MEMORY = "/dev/shm"  # noqa: S108 - where medium Memory has to be
# In a scratch directory: whose it is, should its runner not live to remove it (``leftovers``).
NODE_FILE = "node"


class VolumeError(Exception):
    """A volume can't be mounted now; the message is kubectl's, the pod waits and it is tried again."""


class Scratch:
    """The node-local directories of one run of the job."""

    def __init__(self, base: str, name: str) -> None:
        self.path = os.path.join(base, name)
        self.memory = os.path.join(MEMORY, name)

    def make(self) -> None:
        """Make them, private to the user. A leftover of the same name must be the user's own."""
        for path in (self.path, self.memory):
            os.makedirs(path, mode=0o700, exist_ok=True)
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise VolumeError("%s exists and is not a directory of this user" % path)
        with open(os.path.join(self.path, NODE_FILE), "w", encoding="utf-8") as stream:
            stream.write(node_name())

    def directory(self, *names: str) -> str:
        """Return a private directory in it, made if need be."""
        path = os.path.join(self.path, *names)
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path

    def remove(self) -> None:
        """Remove everything. Files that stay are named in the job's output."""
        for path in (self.path, self.memory):
            remove_tree(path)


def remove_tree(path: str) -> None:
    """Remove a directory with all in it, whatever its writer made of it; a missing one is no error.

    What can't be removed is named in the job's output, and stays.
    """
    if not os.path.isdir(path):
        return
    # The way there may be a link (``/tmp``, a site's ``$TMPDIR``); what is removed is not.
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    try:
        _unmount_below(real)
        removal.remove_tree(real)
    except (OSError, ValueError) as error:
        sys.stderr.write("slurmlet: left behind: %s\n" % error)


def _unmount_below(path: str) -> None:
    """Unmount images: SingularityCE mounts them on the node, by FUSE, and leaves them so if it is killed."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as stream:
        mounted = [line.split(" ")[1:3] for line in stream]
    points = [point.replace("\\040", " ") for point, kind in mounted if kind.startswith("fuse")]  # proc_pid_mounts(5)
    for point in points:
        if point.startswith(path + "/"):
            import shutil  # seldom
            import subprocess

            program = shutil.which("fusermount3") or "fusermount"
            subprocess.call([program, "-u", "-z", point])


def _open_to_all(path: str) -> str:
    os.makedirs(path, mode=0o777, exist_ok=True)
    os.chmod(path, 0o777)  # noqa: S103 - as every emptyDir is
    return path


def _linked(scratch: Scratch, name: str) -> str:
    """Make a volume in memory; return a link to it. Apptainer mounts nothing that it is told lies in /dev at /dev/shm."""
    target = _open_to_all(os.path.join(scratch.memory, name))
    link = os.path.join(scratch.directory("memory"), name)
    if not os.path.islink(link):
        os.symlink(target, link)
    return link


_IS = {
    "Directory": stat.S_ISDIR,
    "File": stat.S_ISREG,
    "Socket": stat.S_ISSOCK,
    "CharDevice": stat.S_ISCHR,
    "BlockDevice": stat.S_ISBLK,
}


def _host_path(volume: plan.Volume) -> str:
    """Check a hostPath by its type, and make it where the type says so."""
    kind = volume.path_type
    if kind.endswith("OrCreate") and not os.path.exists(volume.path):
        umask = os.umask(0o022)  # the kubelet's: others may read what is made
        try:
            if kind == "DirectoryOrCreate":
                os.makedirs(volume.path)
            else:
                os.close(os.open(volume.path, os.O_WRONLY | os.O_CREAT, 0o644))
        finally:
            os.umask(umask)
    wanted = kind[: -len("OrCreate")] if kind.endswith("OrCreate") else kind
    try:
        mode = os.stat(volume.path).st_mode
    except OSError as error:
        raise VolumeError("hostPath type check failed: %s: %s" % (volume.path, error.strerror)) from error
    if wanted and not _IS[wanted](mode):
        raise VolumeError("hostPath type check failed: %s is not a %s" % (volume.path, wanted.lower()))
    return volume.path


def _claim(volume: plan.Volume) -> str:
    """Check the directory of a claim: nothing is made there, it is the site's."""
    if not os.path.isdir(volume.path):
        raise VolumeError("%s, where the site has this claim, is not a directory on this node" % volume.path)
    return volume.path


def _apart(path: str, directory: JobDir) -> None:
    """Refuse a path whose links lead to, or above, the directory of all jobs, which holds other pods' secrets."""
    real, jobs = os.path.realpath(path), os.path.realpath(os.path.dirname(directory.path))
    if os.path.commonpath([real, jobs]) in (real, jobs):
        raise VolumeError("%s leads to the files of other pods" % path)


def prepare(pod: plan.Plan, directory: JobDir, scratch: Scratch) -> Dict[str, str]:
    """Make what has to be made; return where each volume is. Raises VolumeError naming the volume. Idempotent."""
    places: Dict[str, str] = {}
    for volume in pod.volumes:
        try:
            if volume.kind == plan.CONTENT:
                places[volume.name] = directory.volume(volume.name)
            elif volume.kind == plan.EMPTY_DIR:
                places[volume.name] = _open_to_all(os.path.join(scratch.path, "volumes", volume.name))
            elif volume.kind == plan.MEMORY:
                places[volume.name] = _linked(scratch, volume.name)
            elif volume.kind == plan.CLAIM:
                _apart(volume.path, directory)
                places[volume.name] = _claim(volume)
            else:
                _apart(volume.path, directory)
                places[volume.name] = _host_path(volume)
        except (OSError, VolumeError) as error:
            raise VolumeError('MountVolume.SetUp failed for volume "%s" : %s' % (volume.name, error)) from error
    return places


def usage(path: str) -> int:
    """Return how many bytes a directory takes, as ``du`` counts: blocks, each file once. What vanishes counts nothing."""
    total, seen, left = 0, set(), [path]
    while left:
        try:
            entries = os.scandir(left.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
                if stat.S_ISDIR(found.st_mode):
                    left.append(entry.path)
    return total
