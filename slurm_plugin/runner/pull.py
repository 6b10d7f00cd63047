"""Gets one image into the cache: decided by the pull policy, pulled by the runtime, once however many jobs ask.

Runs in a worker, for it blocks. Everything it says to the runner is a small object: ``{"pulling": true}``, then either
``{"ready": …}`` or ``{"failed": reason, "message": …}``. HTTP and TLS are loaded there, and only if a registry is asked: the
runner does without, and so does a pod whose image is here.
"""

import json
import os
import signal
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .cache import Cache
from .image import ImageConfig, config_to_json
from .logins import Login, logins_from_json, matching
from .plan import Image, Runtime
from .process import send
from .proctree import descendants
from .progress import Progress
from .reference import Reference, RegistryError, is_digest, parse_source
from .runtimes import Wanted, load
from .worker import Emit

_RENEW_SECONDS = 5.0
_SHOWN = 2000
_UNKNOWN = "unknown flag"  # so begins the answer of an Apptainer that is older than an option


class PullError(Exception):
    """The image can't be had; ``reason`` is the kubelet's."""

    def __init__(self, reason: str, message: str) -> None:
        Exception.__init__(self, message)
        self.reason = reason


class StuckError(Exception):
    """The pull did not get on."""


class Paths(NamedTuple):
    """Which images may be paths of the node: below those ``allowed``, and ``apart`` from these, that hold other pods' files."""

    allowed: Tuple[str, ...]
    apart: Tuple[str, ...]


class Puller(NamedTuple):
    """With what images are pulled.

    ``host`` is the environment of the program that pulls, with a TMPDIR on the node; ``logins`` the file with the pod's logins.
    ``patience``: after so many seconds in which nothing came a pull is given up, and others that wait for it may try.
    """

    runtime: Runtime
    cache: Cache
    host: Dict[str, str]
    logins: str
    paths: Paths
    patience: float = 300.0


def fetch(image: Image, puller: Puller) -> Callable[[Emit], None]:
    """Return the worker's function."""

    def work(emit: Emit) -> None:
        try:
            emit({"ready": _ready(image, puller, emit)})
        except PullError as error:
            emit({"failed": error.reason, "message": str(error)[:_SHOWN]})
        except (RegistryError, OSError, ValueError) as error:
            emit({"failed": "ErrImagePull", "message": str(error)[:_SHOWN]})

    return work


def _ready(image: Image, puller: Puller, emit: Emit) -> Dict[str, Any]:
    if not image.source:
        raise PullError("InvalidImageName", "couldn't parse image name %r: invalid reference format" % image.name)
    if image.source.startswith("/"):
        return _local(image, puller)
    cache = puller.cache
    reference = parse_source(image.source)
    logins = matching(_read_logins(puller.logins), reference.registry, reference.path)
    cache.make()
    digest = reference.version if is_digest(reference.version) else cache.digest_of(image.source)
    here = digest is not None and cache.has(digest)
    if image.pull_policy == "Never" and not (digest is not None and here and cache.allows(digest, logins)):
        raise PullError("ErrImageNeverPull", "Container image %r is not present with pull policy of Never" % image.name)
    if digest is not None and here and (image.pull_policy != "Always" or is_digest(reference.version)):
        if not cache.allows(digest, logins):
            # Another pod's login got it. It is for this one too if the registry says so: the kubelet's
            # KubeletEnsureSecretPulledImages.
            cache.allow(digest, _find_digest(reference._replace(version=digest), logins, insecure=image.insecure)[1])
        return _described(reference, cache, digest, pulled=False)
    emit({"pulling": True})
    digest, login = _find_digest(reference, logins, insecure=image.insecure)
    if not cache.has(digest):
        _pull_once(image, reference._replace(version=digest), puller, login)
    cache.allow(digest, login)
    cache.remember(image.source, digest)
    return _described(reference, cache, digest, pulled=True)


def _find_digest(reference: Reference, logins: Sequence[Login], *, insecure: bool) -> Tuple[str, Optional[Login]]:
    from .registry import find_digest

    return find_digest(reference, logins, insecure=insecure)


def _read_logins(path: str) -> Tuple[Login, ...]:
    try:
        with open(path, encoding="utf-8") as stream:
            return logins_from_json(json.load(stream))
    except FileNotFoundError:
        return ()  # the pod has no pull secrets


def _local(image: Image, puller: Puller) -> Dict[str, Any]:
    """A ``.sif`` file or an unpacked tree that is on the site's file system already, wherever links lead within it."""
    path, paths = os.path.realpath(image.source), puller.paths
    allowed = any(_inside(path, os.path.realpath(each)) for each in paths.allowed)
    apart = [os.path.realpath(each) for each in paths.apart]
    if not allowed or any(_inside(path, each) or _inside(each, path) for each in apart):
        raise PullError("ErrImagePull", "%s is, or leads to, no path that the site allows for images" % image.source)
    if not os.path.exists(path):
        raise PullError("ErrImagePull", "%s: no such file or directory on this node" % image.source)
    config = None if os.path.isdir(path) else load(puller.runtime.kind).image_config(path)
    return {"path": path, "image_id": image.source, "config": _json(config), "pulled": False}


def _inside(path: str, directory: str) -> bool:
    return os.path.commonpath([path, directory]) == directory


def _described(reference: Reference, cache: Cache, digest: str, *, pulled: bool) -> Dict[str, Any]:
    path = cache.image(digest)
    return {
        "path": path,
        "image_id": "%s@%s" % (reference.repository, digest),
        "config": _json(cache.config(digest)),
        "pulled": pulled,
        "size": os.stat(path).st_size,
    }


def _json(config: Optional[ImageConfig]) -> Optional[Dict[str, Any]]:
    return None if config is None else config_to_json(config)


def _pull_once(image: Image, reference: Reference, puller: Puller, login: Optional[Login]) -> None:
    import tempfile  # seldom

    digest, cache = reference.version, puller.cache
    lease = cache.lock(digest, lambda: cache.has(digest))
    if lease is None:
        return  # another job has pulled it meanwhile
    temporary = cache.temporary(digest)
    runtime = load(puller.runtime.kind)
    environment = dict(puller.host, **({} if login is None else runtime.pull_variables(login.username, login.password)))
    try:
        if cache.has(digest):
            return
        cache.clear(digest)
        cache.allow(digest, login)  # before it can be seen: without a note it would be anybody's
        source = "%s://%s@%s" % (reference.scheme, reference.repository, digest)
        commands = runtime.pull_commands(Wanted(puller.runtime, source, temporary, image.insecure))
        with tempfile.TemporaryDirectory(prefix="slurmlet-pull-", dir=environment.get("APPTAINER_TMPDIR")) as room:
            environment["PATH"] = runtime.pull_path(environment.get("PATH", ""), room)
            try:
                _run_first(commands, environment, lease.renew, puller.patience)
            except StuckError as error:
                raise PullError("ErrImagePull", "%s: %s; given up" % (reference.registry, error)) from error
        cache.add(temporary, digest, runtime.image_config(temporary))
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
        lease.release()


def _run_first(
    commands: List[List[str]], environment: Dict[str, str], renew: Callable[[], None], patience: float
) -> None:
    """Run the first of these commands all of whose options the program knows. PullError, StuckError."""
    for argv in commands:
        try:
            _run(argv, environment, renew, patience)
        except PullError as error:
            if argv is commands[-1] or _UNKNOWN not in str(error):
                raise
        else:
            return


def _run(argv: List[str], environment: Dict[str, str], renew: Callable[[], None], patience: float) -> None:
    """Run the pull, renewing the lease; PullError with its last words, StuckError if it does not get on."""
    import subprocess

    with subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
    ) as process:
        progress = Progress(process.pid)
        while True:
            try:
                output, _none = process.communicate(timeout=min(_RENEW_SECONDS, patience / 2))
                break
            except subprocess.TimeoutExpired:
                renew()
            if progress.still_for() > patience:
                for pid in [process.pid] + [each.pid for each in descendants(process.pid)]:
                    send(pid, signal.SIGKILL)
                raise StuckError("nothing came for %d seconds" % patience)
    if process.returncode != 0:
        words = _telling(output.decode("utf-8", "replace").strip())
        raise PullError("ErrImagePull", words or "apptainer pull exited with %d" % process.returncode)


def _telling(words: str) -> str:
    """Return what tells why a program failed: its last words, but the one line above the whole manual."""
    return next((line for line in words.splitlines() if _UNKNOWN in line), words[-_SHOWN:])


def elapsed(since: float) -> str:
    """Return a duration as Go prints it, near enough: ``1.234s``."""
    return "%.3fs" % (time.monotonic() - since)
