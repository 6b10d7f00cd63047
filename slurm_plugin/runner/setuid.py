"""Whether containers get a user namespace of their user's own although Apptainer is installed setuid root.

A setuid Apptainer makes a container in the node's user namespace, which nobody but root may enter: no exec probe, no
hook, no ``kubectl exec``. With ``--userns`` it leaves its setuid half aside, as an installation without one does always.
That is asked of it here where the node can do it, unless the site's own options have a word on it.

Decided once per pod, by files alone; no program is started. What can't be found out (a wrapper script of the site's, a
configuration elsewhere) leaves everything as it is. The rules are those of Apptainer 1.4.5 (``internal/pkg/runtime/launch``,
``internal/pkg/image/driver``) and SingularityCE 4.3.3 (``internal/pkg/runtime/launcher/native``).
"""

import os
import re
import stat
import sys
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from .plan import Runtime
from .runtimes.base import Settled

_OPTION = "--userns"
_APPTAINER, _SINGULARITY = "apptainer", "singularity"
# Compiled when they are needed: most installations have no setuid half, and every pod's start waits for this module.
_OF_THE_SITE = r"--(userns|fakeroot|ignore-userns)(=.*)?\Z|-[a-zA-Z]*[uf][a-zA-Z]*\Z"
_FALSE = tuple("--userns=" + word for word in ("false", "False", "FALSE", "f", "F", "0"))
_DIRECTIVE = r"\s*([a-z][a-z ]*[a-z])\s*=\s*(\S*)\s*\Z"
_KERNEL_OVERLAY = (5, 11)  # overlayfs in a user namespace: https://docs.kernel.org/filesystems/overlayfs.html
PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Apptainer's "binary path" after $PATH
_SYSCTLS = ("user/max_user_namespaces", "kernel/unprivileged_userns_clone")
_APPARMOR = "kernel/apparmor_restrict_unprivileged_userns"


class Installation(NamedTuple):
    """An Apptainer whose setuid half is there. ``directives`` are those of ``configuration``, its path."""

    name: str
    starter: str
    configuration: str
    directives: Dict[str, str]


class Node(NamedTuple):
    """What of the node decides. ``sysctls`` that the kernel has, as text; ``programs`` that are installed.

    ``profiled``: an AppArmor profile lets the starter make user namespaces. ``fuse``: /dev/fuse is open to the user.
    """

    sysctls: Dict[str, str]
    profiled: bool
    fuse: bool
    programs: Tuple[str, ...]
    kernel: Tuple[int, ...]


def settle(runtime: Runtime, executable: str, host_path: str) -> Settled:
    """Look at this node and decide. ``executable``: the program's path; ``host_path``: the PATH it will have."""
    found = installation(executable) if os.getuid() else None  # root has no need of a setuid starter
    if found is None:
        return Settled(runtime, "")
    return decide(runtime, found, _node(found, host_path))


def decide(runtime: Runtime, found: Installation, node: Node) -> Settled:
    """Return the runtime with what makes its containers enterable, or why they are not."""
    if found.directives.get("allow setuid") == "no":
        return Settled(runtime, "")  # it makes user namespaces by itself
    own = [option for option in runtime.options if re.match(_OF_THE_SITE, option)]
    if own:
        return Settled(runtime, _words("pods.runtime.options has " + own[-1]) if own[-1] in _FALSE else "")
    reason = lacking(found, node)
    if reason:
        return Settled(runtime, _words(reason))
    return Settled(runtime._replace(options=(_OPTION,) + runtime.options), "")


def _words(reason: str) -> str:
    return "the container can't be entered: a setuid installation made it without a user namespace, for %s" % reason


def lacking(found: Installation, node: Node) -> str:
    """Return what the node lacks for ``--userns``, in words for its administrator; empty if nothing."""
    if found.directives.get("allow user ns") == "no":
        return "%s has allow user ns = no" % found.configuration
    for name in _SYSCTLS:
        if node.sysctls.get(name) == "0":
            return "%s is 0 on the node" % name.replace("/", ".")
    if node.sysctls.get(_APPARMOR) == "1" and not node.profiled:
        return "%s is 1 on the node, and no %s allows userns" % (_APPARMOR.replace("/", "."), _profile(found))
    if not node.fuse:
        return "/dev/fuse is not open to users on the node"
    wanted: List[Tuple[str, ...]] = [("squashfuse_ll", "squashfuse")]
    if found.name == _SINGULARITY:
        # Before 4.1, which is when its configuration got that directive, it unpacked each image for each container.
        if "tmp sandbox" not in found.directives and found.directives.get("sif fuse") != "yes":
            return "SingularityCE before 4.1 mounts no image in one"
        wanted.append(("fusermount3", "fusermount"))
    if node.kernel < _KERNEL_OVERLAY:
        wanted.append(("fuse-overlayfs",))
    for either in wanted:
        if not set(either) & set(node.programs):
            return "%s is not installed on the node" % " or ".join(either)
    return ""


def installation(executable: str) -> Optional[Installation]:
    """Return the setuid installation that a program belongs to; None if it has no setuid half, or that can't be told."""
    path = os.path.realpath(executable)
    name, prefix = os.path.basename(path), os.path.dirname(os.path.dirname(path))
    if name not in (_APPTAINER, _SINGULARITY):
        return None
    multiarch = getattr(sys.implementation, "_multiarch", "")
    places = ("libexec", "lib/" + multiarch, "lib64", "lib")
    starters = [os.path.join(prefix, place, name, "bin", "starter-suid") for place in places]
    starter = next((starter for starter in starters if _is_setuid_root(starter)), "")
    for directory in (os.path.join(prefix, "etc"), "/etc") if starter else ():
        configuration = os.path.join(directory, name, name + ".conf")
        text = _text(configuration)
        if text:
            return Installation(name, starter, configuration, directives(text))
    return None


def directives(text: str) -> Dict[str, str]:
    """Read ``apptainer.conf``: the directives whose value is one word, or none."""
    found = (re.match(_DIRECTIVE, line) for line in text.splitlines())
    return {match.group(1): match.group(2) for match in found if match is not None}


def _node(found: Installation, host_path: str) -> Node:
    directories = [os.path.dirname(found.starter)] + (host_path + ":" + PROGRAM_PATH).split(":")
    names = ("squashfuse_ll", "squashfuse", "fusermount3", "fusermount", "fuse-overlayfs")
    sysctls = {name: _text("/proc/sys/" + name).strip() for name in _SYSCTLS + (_APPARMOR,)}
    return Node(
        sysctls=sysctls,
        profiled=sysctls[_APPARMOR] == "1" and _profiled(found),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        programs=tuple(name for name in names if _is_there(name, directories)),
        kernel=tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2]),
    )


def _profiled(found: Installation) -> bool:
    """Return whether there is the AppArmor profile of both projects' packages and manuals (``debian/apparmor-userns``)."""
    text = _text(_profile(found))
    return "/%s/bin/starter" % found.name in text and "userns," in text


def _profile(found: Installation) -> str:
    return "/etc/apparmor.d/" + (found.name if found.name == _APPTAINER else "singularity-ce")


def _is_there(name: str, directories: Sequence[str]) -> bool:
    return any(directory and os.access(os.path.join(directory, name), os.X_OK) for directory in directories)


def _is_setuid_root(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_uid == 0 and bool(status.st_mode & stat.S_ISUID)


def _text(path: str) -> str:
    """Return a file's text; empty if it is not there or not for us to read: then nothing is concluded from it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
