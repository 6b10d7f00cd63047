"""The image cache that all jobs of a user share, on a file system that all nodes see.

``sif/<digest>.sif`` is an image and ``sif/<digest>.json`` its configuration; ``names/`` remembers which digest a name
last had, ``access/<digest>/`` for whom a registry gave it out. Everything is made under another name and renamed. A lock is a link() with a lease, for flock is absent or
local on many parallel file systems; were two holders ever to meet, an image would be pulled twice, no more.
"""

import contextlib
import json
import os
import time
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from .image import ImageConfig, config_from_json, config_to_json
from .linking import link
from .logins import Login

LEASE_SECONDS = 60.0
_POLL_SECONDS = 0.25


def _hash(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _key(login: Optional[Login]) -> str:
    return "anybody" if login is None else _hash("%s\0%s\0%s" % login)


class Cache:
    """Names of the cache's files, and the few operations on them."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._own = "%s.%d" % (os.uname().nodename, os.getpid())

    def make(self) -> None:
        """Make its directories. Idempotent."""
        for name in ("sif", "names", "access", "locks", "tmp"):
            os.makedirs(os.path.join(self.root, name), mode=0o700, exist_ok=True)

    def image(self, digest: str) -> str:
        """Return the path of an image."""
        return os.path.join(self.root, "sif", digest.replace(":", "-") + ".sif")

    def _config(self, digest: str) -> str:
        return os.path.join(self.root, "sif", digest.replace(":", "-") + ".json")

    def _name(self, source: str) -> str:
        return os.path.join(self.root, "names", _hash(source) + ".json")

    def temporary(self, digest: str) -> str:
        """Return where this process may build an image."""
        return os.path.join(self.root, "tmp", "%s.%s.sif" % (digest.replace(":", "-"), self._own))

    def clear(self, digest: str) -> None:
        """Remove what pulls of an image that were killed have left. For who has its lock: none of them goes on."""
        tmp, prefix = os.path.join(self.root, "tmp"), digest.replace(":", "-") + "."
        for name in os.listdir(tmp):
            if name.startswith(prefix) and name.endswith(".sif"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(tmp, name))

    def _write(self, path: str, data: Dict[str, Any]) -> None:
        temporary = os.path.join(self.root, "tmp", "%s.%s" % (os.path.basename(path), self._own))
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump(data, stream)
        os.rename(temporary, path)

    def digest_of(self, source: str) -> Optional[str]:
        """Return the digest that a name had when it was last pulled here."""
        try:
            with open(self._name(source), encoding="utf-8") as stream:
                return str(json.load(stream)["digest"])
        except (FileNotFoundError, ValueError, KeyError):
            return None  # never pulled, or a record that nothing can be read from: it is asked again

    def has(self, digest: str) -> bool:
        """Return whether the image is here. Opened, not stat'ed: NFS caches that a file is absent."""
        try:
            os.close(os.open(self.image(digest), os.O_RDONLY))
        except FileNotFoundError:
            return False
        return True

    def config(self, digest: str) -> Optional[ImageConfig]:
        """Return the configuration of an image that is here; None if it has none."""
        try:
            with open(self._config(digest), encoding="utf-8") as stream:
                data = json.load(stream)["config"]
        except (FileNotFoundError, ValueError, KeyError):
            return None
        return None if data is None else config_from_json(data)

    def remember(self, source: str, digest: str) -> None:
        """Note which digest a name has."""
        if self.digest_of(source) != digest:
            self._write(self._name(source), {"source": source, "digest": digest})

    def add(self, temporary: str, digest: str, config: Optional[ImageConfig]) -> None:
        """Take a built image in. The configuration comes first: an image that is seen is whole."""
        self._write(self._config(digest), {"config": None if config is None else config_to_json(config)})
        os.rename(temporary, self.image(digest))

    def _access(self, digest: str) -> str:
        return os.path.join(self.root, "access", digest.replace(":", "-"))

    def allow(self, digest: str, login: Optional[Login]) -> None:
        """Note that a registry gave the image to this login, or, without one, to anybody."""
        os.makedirs(self._access(digest), mode=0o700, exist_ok=True)
        os.close(os.open(os.path.join(self._access(digest), _key(login)), os.O_WRONLY | os.O_CREAT, 0o600))

    def allows(self, digest: str, logins: Sequence[Login]) -> bool:
        """Return whether the image is for anybody, or for one of these. One without any note was put here by the site."""
        try:
            noted = os.listdir(self._access(digest))
        except FileNotFoundError:
            return True
        return any(_key(login) in noted for login in [None] + list(logins))

    def lock(self, digest: str, stop_waiting: Callable[[], bool]) -> Optional["Lease"]:
        """Wait for an image's lock. None: ``stop_waiting`` (asked several times a second) said so."""
        path = os.path.join(self.root, "locks", digest.replace(":", "-"))
        lease = Lease(path, os.path.join(self.root, "tmp", "%s.lock.%s" % (os.path.basename(path), self._own)))
        while not stop_waiting():
            if lease.take():
                return lease
            time.sleep(_POLL_SECONDS)
        return None


class Lease:
    """A lock file made by link(). Its holder renews it; one that stays unchanged for a minute is broken."""

    def __init__(self, path: str, own: str) -> None:
        self._path = path
        self._own = own
        self._seen: Tuple[str, int] = ("", 0)
        self._since = 0.0
        self._round = 0

    def _read(self) -> Optional[Tuple[str, int]]:
        try:
            with open(self._path, encoding="utf-8") as stream:
                return stream.read(), int(os.fstat(stream.fileno()).st_mtime)
        except FileNotFoundError:
            return None

    def take(self) -> bool:
        """Try once; return whether it is ours now."""
        with open(self._own, "w", encoding="utf-8") as stream:
            stream.write("%s %.6f\n" % (self._own, time.time()))
        try:
            if link(self._own, self._path):
                return True
        finally:
            os.unlink(self._own)
        self._break_if_stale()
        return False

    def _break_if_stale(self) -> None:
        """Judged by our own clock alone: clocks of nodes differ."""
        seen = self._read()
        if seen is None:
            return
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        elif time.monotonic() - self._since > LEASE_SECONDS:
            try:
                os.rename(self._path, self._own)
                os.unlink(self._own)
            except FileNotFoundError:
                return  # another waiter was faster

    def renew(self) -> None:
        """Show that the holder lives; to be called several times within the lease."""
        try:
            self._round += 1
            os.utime(self._path, (time.time() + self._round, time.time() + self._round))
        except FileNotFoundError:
            return  # it was taken for dead and broken: the work goes on, at worst twice

    def release(self) -> None:
        """Give it back."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return
