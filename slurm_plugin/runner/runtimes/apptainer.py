"""Apptainer (1.1 or later; SingularityCE takes the same words): a container's run as one ``apptainer exec``.

The environment enters by a script among the image's own, the last of them, which the shell built into Apptainer reads
inside: a 0600 file on the node, so that no value is on a command line, where every user of the node could read it, nor
acts on the starter (LD_PRELOAD, APPTAINER_BIND…). ``--env-file`` is evaluated by a shell on the node; ``APPTAINERENV_…``
loses carriage returns and breaks at characters beyond ASCII, so the script is pure ASCII and spells those out. Names
that no shell takes (``a.b``, as ConfigMap keys often are) pass through the starter: nothing on the node gives them a
meaning. The same script waits at the gate (``runner.gate``) until the runner has seen the container.

All of it was tried with Apptainer 1.4.5.
"""

import os
import re
import shlex
from typing import Dict, List, Optional, Tuple

from .. import gate, setuid
from ..image import ImageConfig, config_from_json
from ..plan import Runtime
from ..process import Launch, StartError
from ..proctree import descendants, namespace_depth
from ..sif import oci_config
from .base import Bind, InexpressibleError, Setting, Settled, Wanted, job_variables

ISOLATED = True
NEEDS_IMAGE = True

_HOST = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "XDG_RUNTIME_DIR")
_GPU_OPTIONS: Dict[str, Tuple[str, ...]] = {"nvidia": ("--nv",), "rocm": ("--rocm",)}
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLAIN_PATH = re.compile(r"[^:,\\\"']*\Z")
_READ_ONLY_NAMES = ("UID", "EUID", "GID")  # of the shell that Apptainer injects the environment with
_SCRIPT = "/.singularity.d/env/zz-slurmlet.sh"  # the last of the scripts that Apptainer reads inside


def _csv(field: str) -> str:
    """Quote one field of ``--mount``'s value, which is a line of CSV."""
    return '"%s"' % field.replace('"', '""') if re.search(r'[",]', field) else field


def bind_options(bind: Bind) -> Tuple[str, ...]:
    """Return a bind's options. InexpressibleError for a path that Apptainer has no way to say."""
    for path in (bind.source, bind.target):
        if any(ord(character) < 32 or character == "\x7f" for character in path):
            raise InexpressibleError("Apptainer can't mount a path with a control character: %r" % path)
    if _PLAIN_PATH.match(bind.source) and _PLAIN_PATH.match(bind.target):
        return ("--bind", "%s:%s%s" % (bind.source, bind.target, ":ro" if bind.read_only else ""))
    fields = ["type=bind", _csv("source=" + bind.source), _csv("destination=" + bind.target)]
    return ("--mount", ",".join(fields + (["ro"] if bind.read_only else [])))


def _value(setting: Setting, name: str) -> str:
    """Return a variable's value as the pod, else the image, has it; empty if neither does."""
    if name in setting.environment:
        return setting.environment[name]
    config = setting.image.config
    entries = (entry.partition("=") for entry in (config.env if config is not None else ()))
    return next((value for key, _equals, value in entries if key == name), "")


def _escaped(character: str) -> str:
    code = ord(character)
    if character in "\\'":
        return "\\" + character
    if 32 <= code < 127:
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as Python holds one
        return "\\x%02x" % (code - 0xDC00)
    return "\\%03o" % code if code < 128 else "\\u%04x" % code if code < 0x10000 else "\\U%08x" % code


def _word(value: str) -> str:
    """Quote a value for the script, in ASCII, so that its shell reads it unchanged."""
    if all(32 <= ord(character) < 127 for character in value):
        return shlex.quote(value)
    return "$'%s'" % "".join(_escaped(character) for character in value)


def _inside(setting: Setting) -> Dict[str, str]:
    """Return the variables that the container is to have besides its image's own. InexpressibleError by name."""
    values = dict(job_variables(setting), **setting.environment)
    for name, value in values.items():
        if name in _READ_ONLY_NAMES:
            raise InexpressibleError("Apptainer can't set the environment variable %s" % name)
        if name.startswith("BASH_FUNC_"):
            raise InexpressibleError("the environment variable %r would be a function of every bash on the way" % name)
        if "\0" in name + value:
            raise InexpressibleError("the environment variable %r holds a NUL" % name)
    for name in ("HOME", "LD_LIBRARY_PATH"):  # Apptainer sets these itself, over what the image says
        value = _value(setting, name)
        if value:
            values.setdefault(name, value)
    return values


def script(setting: Setting) -> str:
    """Return the script that runs inside, before the command: a shell built into Apptainer reads it, without a program."""
    values = _inside(setting)
    # Apptainer's own libraries are the GPU's; without one they are only a difference from other runtimes.
    lines = [] if setting.container.gpu or "LD_LIBRARY_PATH" in values else ["unset LD_LIBRARY_PATH"]
    if setting.container.gpu and "LD_LIBRARY_PATH" not in setting.environment:
        values.pop("LD_LIBRARY_PATH", None)
    lines += ["export %s=%s" % (name, _word(value)) for name, value in values.items() if _SHELL_NAME.match(name)]
    return (
        "\n".join((gate.script_lines() if setting.gated else []) + lines) + "\n"
    )  # the gate first: no variable of the pod's reaches it


def settle(runtime: Runtime, host: Dict[str, str]) -> Settled:
    """Return the site's settings as they are used here: a setuid installation is asked for containers that can be entered."""
    try:
        return setuid.settle(runtime, _program(runtime, host), host.get("PATH", ""))
    except StartError:
        return Settled(runtime, "")  # who starts it says so


def gate_directory(setting: Setting) -> str:
    """Return where the run's gate is on the node."""
    return os.path.join(setting.scratch, "gate")


def _own_binds(setting: Setting) -> Tuple[Bind, ...]:
    found = (Bind(os.path.join(setting.scratch, "script.sh"), _SCRIPT, True),)
    return found + gate.binds(gate_directory(setting)) if setting.gated else found


def _environment(setting: Setting) -> Tuple[Dict[str, str], bool]:
    """Return the starter's environment, and whether it must reach the container as it is."""
    result = {name: setting.host[name] for name in _HOST if name in setting.host}
    # Where an image can't be mounted it is unpacked, and SingularityCE mounts it there without setuid. Not for the container.
    result["APPTAINER_TMPDIR"] = result["SINGULARITY_TMPDIR"] = setting.scratch
    odd = {name: value for name, value in _inside(setting).items() if not _SHELL_NAME.match(name)}
    return dict(result, **odd), bool(odd)


def launch(setting: Setting) -> Launch:
    """Return what to execute. InexpressibleError: nothing Apptainer offers can do what the container asks for."""
    container = setting.container
    environment, odd = _environment(setting)
    argv: List[str] = [_program(setting.runtime, environment), "--silent", "exec" if setting.command else "run"]
    # --containall is --contain --pid --ipc --cleanenv; our environment is clean already, and odd names must stay in it.
    # Ranks of a node share its IPC: that is how they speak to each other.
    shares = container.ranks is not None
    argv += ["--contain", "--pid"] + (["--ipc"] if not shares else []) if odd or shares else ["--containall"]
    argv += ["--cleanenv"] if shares and not odd else []
    argv += ["--no-eval"] + (["--hostname", setting.hostname] if setting.hostname else [])
    argv += ["--pwd", setting.working_dir or "/"]
    if not container.read_only_root:
        argv.append("--writable-tmpfs")
    argv += _GPU_OPTIONS.get(container.gpu, ())
    argv += ["--workdir", os.path.join(setting.scratch, "work")]
    for bind in setting.binds + _own_binds(setting):
        argv += bind_options(bind)
    argv += setting.runtime.options
    argv.append(setting.image.path)
    argv += setting.command or setting.arguments
    return Launch(tuple(argv), environment, "/")


def prepare(setting: Setting) -> None:
    """Make the files that ``launch`` names."""
    os.makedirs(os.path.join(setting.scratch, "work"), mode=0o700, exist_ok=True)
    if setting.gated and setting.container.ranks is None:  # of ranks the runner has made it
        gate.make(gate_directory(setting))
    descriptor = os.open(os.path.join(setting.scratch, "script.sh"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="ascii") as stream:
        stream.write(script(setting))


def _program(runtime: Runtime, environment: Dict[str, str]) -> str:
    executable, path = runtime.executable or "apptainer", environment.get("PATH", "")
    if "/" in executable:
        return executable
    for directory in path.split(":"):
        candidate = os.path.join(directory, executable)
        if directory and os.access(candidate, os.X_OK):
            return candidate
    raise StartError("%s is not installed on this node: not found in %s" % (executable, path or "an empty PATH"))


# mksquashfs takes a quarter of the node's memory if nobody tells it otherwise, and the job's limit would end it.
# ``pull`` has no word for that, nor has ``build`` before Apptainer 1.4 and in SingularityCE: there it is told by who stands
# in for it in the PATH.
_FRUGAL = "-mem 64M -processors 2"
_BUILD = ("build", "--mksquashfs-args", _FRUGAL)


def pull_commands(wanted: Wanted) -> List[List[str]]:
    """Return what makes a registry's image a file; the next one where the program does not know an option."""
    tail = ["--force", "--disable-cache"] + (["--no-https"] if wanted.insecure else []) + [wanted.path, wanted.source]
    program = [wanted.runtime.executable or "apptainer", "--silent"]
    return [program + list(words) + tail for words in (_BUILD, ("pull",))]


def pull_variables(user: str, password: str) -> Dict[str, str]:
    """Return how Apptainer and its forerunners are told a login: not on the command line, which every user sees."""
    words = {"DOCKER_USERNAME": user, "DOCKER_PASSWORD": password}
    return {prefix + name: word for prefix in ("APPTAINER_", "SINGULARITY_") for name, word in words.items()}


def pull_path(path: str, directory: str) -> str:
    """Return the PATH that these programs are to have. OSError: what has to be made for it in ``directory`` can't be."""
    import shutil  # seldom

    real = shutil.which("mksquashfs", path="%s:%s" % (path, setuid.PROGRAM_PATH))
    if real is None:
        return path
    descriptor = os.open(os.path.join(directory, "mksquashfs"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write('#!/bin/sh\nexec %s "$@" %s\n' % (shlex.quote(real), _FRUGAL))
    return "%s:%s" % (directory, path)


def image_config(path: str) -> Optional[ImageConfig]:
    """Return what an image says of itself; None for one of another kind, whose own run script says what it runs."""
    try:
        data = oci_config(path)
    except ValueError:
        return None
    return None if data is None else config_from_json(data)


def inner_processes(pid: int) -> List[int]:
    """Return the processes inside the container, the init first; none before it is set up."""
    depth = namespace_depth(pid)
    return [p.pid for p in descendants(pid) if not p.zombie and namespace_depth(p.pid) > depth]


def _command_line(pid: int) -> bytes:
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as stream:
            return stream.read()
    except OSError:
        return b""  # it has ended


def main_process(pid: int) -> int:
    """Return the container's own first process, once it executes its command; until then the starter itself.

    TERM belongs to the command, as in Kubernetes; the init above it only reaps. A copy of the init that is about to
    execute the command has its command line still.
    """
    inner = inner_processes(pid)
    if not inner:
        return pid
    init = _command_line(inner[0])
    for other in inner[1:]:
        words = _command_line(other)
        if words and words != init and not gate.is_loader(words):
            return other
    return pid


def init_process(pid: int) -> int:
    """Return the first process of the container's PID namespace: KILL it and none is left. Else the starter itself."""
    inner = inner_processes(pid)
    return inner[0] if inner else pid
