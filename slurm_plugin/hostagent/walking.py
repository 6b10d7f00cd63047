"""Walking to a directory so that nobody can lead the way astray.

Every path is walked from ``/`` by file descriptor and no symbolic link on it is followed, so that what was checked is
what is used. Everything raises OSError with the path in it, or ValueError for a path that can't be meant.
"""

import contextlib
import errno
import grp
import os
import pwd
import stat
from typing import Any, List, Sequence

from .protocol import decode_text, encode_text

# O_PATH: a directory that may be searched but not listed (/home, 0711) is walked through like any other.
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def split(path: str) -> List[bytes]:
    """Return the components of an absolute path; ValueError unless it is one, in its plainest spelling."""
    if not path.startswith("/") or path == "/":
        raise ValueError("not an absolute path below /: %r" % (path,))
    return components(path[1:], path)


def components(relative: str, path: str) -> List[bytes]:
    """Return the components of a relative path in its plainest spelling; ``path`` is for the message."""
    parts = encode_text(relative).split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        raise ValueError("not a plain path: %r" % (path,))
    return parts


class Walk:
    """A directory being walked to: its descriptor and the name for messages. Closes itself as a context manager."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name

    def __enter__(self) -> "Walk":
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self.fd)

    def path(self, name: bytes) -> str:
        """Return the whole path of a name in this directory."""
        return self.name.rstrip("/") + "/" + decode_text(name)

    def enter(self, name: bytes, make: bool = False) -> None:
        """Go into a directory, after making it (0700) if asked."""
        path = self.path(name)
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=self.fd)
            fd = os.open(name, _DIRECTORY, dir_fd=self.fd)
        except OSError as error:
            raise self.explain(error, name) from None
        os.close(self.fd)
        self.fd, self.name = fd, path

    def explain(self, error: OSError, name: bytes) -> OSError:
        """Return the error with the path that it is about, and a symbolic link named as such."""
        path = self.path(name)
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and is_link(self.fd, name):
            return OSError(errno.ELOOP, "is a symbolic link, and those are not followed; name the real path", path)
        return OSError(error.errno, error.strerror, path)


def is_link(fd: int, name: bytes) -> bool:
    """Tell whether a name in a directory is a symbolic link."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return False  # gone, or not to be looked at: then the caller's own error says it


def walk(parts: Sequence[bytes], make: bool = False, check: bool = False) -> Walk:
    """Open a directory by walking to it; ``make``: missing ones 0700; ``check``: nobody else may tamper with any."""
    at = Walk(os.open("/", _DIRECTORY), "/")
    try:
        if check:
            check_directory(at)
        for part in parts:
            at.enter(part, make)
            if check:
                check_directory(at)
    except BaseException:
        os.close(at.fd)
        raise
    return at


def check_directory(at: Walk) -> None:
    """Raise PermissionError if anybody but this user and root could replace what is in a directory.

    A sticky directory (``/tmp``) lets others add names, not replace ours. A group with no other member is as good as none.
    """
    status = os.fstat(at.fd)
    if status.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, "belongs to another user (uid %d)" % status.st_uid, at.name)
    if status.st_mode & stat.S_ISVTX:
        return
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _private_group(status.st_gid)):
        words = "is writable by others (mode %04o); chmod go-w" % stat.S_IMODE(status.st_mode)
        raise OSError(errno.EPERM, words, at.name)


def _private_group(gid: int) -> bool:
    if gid == 0:
        return True
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def names(directory: int, path: str) -> List[bytes]:
    """List an open directory."""
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def temporary_name(kind: str) -> bytes:
    """Return a name that no other file has and no pod UID could be."""
    return (".slurmlet-%s-%s" % (kind, os.urandom(8).hex())).encode()
