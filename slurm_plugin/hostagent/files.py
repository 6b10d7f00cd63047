"""File operations on one user's files, each all or nothing.

No symbolic link is followed anywhere (``walking``). ``stage`` also checks who could tamper with the directories above
(sshd's rule for ``authorized_keys``). Everything raises OSError with the path in it, or ValueError for a path that
can't be meant.
"""

import contextlib
import errno
import os
import stat
from typing import Any, Iterator, List, Optional, Sequence, Tuple, Union

from .protocol import decode_text, encode_text
from .removal import remove
from .walking import Walk, check_directory, components, is_link, names, split, temporary_name, walk

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _write_new(fd: int, name: bytes, data: Union[bytes, memoryview], mode: int) -> None:
    out = os.open(name, _NEW, 0o600, dir_fd=fd)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(out, view) :]
        os.fchmod(out, mode)  # the umask has no say
    finally:
        os.close(out)  # NFS reports a full disk or an exceeded quota here, as OSError


def stage(path: str, entries: Sequence[Sequence[Any]], data: bytes) -> bool:
    """Make a directory (0700) with these entries, all or nothing; False if it existed, then untouched.

    ``entries``: ``[path, size, mode]`` of a file, whose bytes are next in ``data``, or ``[path, target]`` of a link.
    """
    parts = split(path)
    with walk(parts[:-1], make=True, check=True) as parent:
        name = parts[-1]
        if _exists(parent, name):
            return False
        try:
            if not entries:
                os.mkdir(name, 0o700, dir_fd=parent.fd)
                return True
            return _stage_in(parent, name, entries, data)
        except FileExistsError:
            return False
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error


def _exists(parent: Walk, name: bytes) -> bool:
    try:
        status = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no directory"
        raise OSError(errno.ENOTDIR, "exists and is " + kind, parent.path(name))
    with Walk(os.dup(parent.fd), parent.name) as directory:
        directory.enter(name)
        check_directory(directory)
    return True


def _stage_in(parent: Walk, name: bytes, entries: Sequence[Sequence[Any]], data: bytes) -> bool:
    temporary = temporary_name("stage")
    os.mkdir(temporary, 0o700, dir_fd=parent.fd)
    try:
        _fill(parent, temporary, entries, data)
        os.rename(temporary, name, src_dir_fd=parent.fd, dst_dir_fd=parent.fd)
    except OSError as error:
        remove(parent, temporary)
        if error.errno == errno.ENOTEMPTY:  # another one was quicker
            return False
        raise
    except BaseException:
        remove(parent, temporary)
        raise
    return True


def _fill(parent: Walk, top: bytes, entries: Sequence[Sequence[Any]], data: bytes) -> None:
    view, position = memoryview(data), 0
    for entry in entries:
        parts = components(entry[0], entry[0])
        with Walk(os.dup(parent.fd), parent.name) as at:
            for part in [top] + parts[:-1]:
                at.enter(part, make=True)
            try:
                if len(entry) == 2:
                    os.symlink(encode_text(entry[1]), parts[-1], dir_fd=at.fd)
                else:
                    size, mode = entry[1], entry[2]
                    _write_new(at.fd, parts[-1], view[position : position + size], mode)
                    position += size
            except FileExistsError:
                raise ValueError("staged twice: %r" % (entry[0],)) from None


def swap_link(path: str, target: str) -> None:
    """Make ``path`` a symbolic link to ``target``, atomically; whatever link it was before, but nothing else."""
    parts = split(path)
    with walk(parts[:-1]) as parent:
        name = parts[-1]
        if not is_link(parent.fd, name) and _there(parent.fd, name):
            raise OSError(errno.EEXIST, "exists and is no symbolic link", path)
        temporary = temporary_name("link")
        try:
            os.symlink(encode_text(target), temporary, dir_fd=parent.fd)
            _rename(parent.fd, temporary, name)
        except OSError as error:
            raise parent.explain(error, name) from error


def _there(fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _rename(fd: int, temporary: bytes, name: bytes) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
    except BaseException:
        os.unlink(temporary, dir_fd=fd)
        raise


def write(path: str, data: bytes, mode: int) -> None:
    """Write a whole file, atomically: a temporary name in the same directory, then rename."""
    parts = split(path)
    with walk(parts[:-1]) as parent:
        temporary = temporary_name("write")
        try:
            try:
                _write_new(parent.fd, temporary, data, mode)
            except BaseException:
                _unlink(parent.fd, temporary)
                raise
            _rename(parent.fd, temporary, parts[-1])
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error


def _unlink(fd: int, name: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=fd)


def open_file(parent: int, name: bytes, path: str) -> int:
    """Open a regular file in a directory for reading; never waits, as it would for a FIFO's writer."""
    try:
        fd = os.open(name, _READ, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a symbolic link, and those are not followed", path) from None
        raise OSError(error.errno, error.strerror, path) from None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "is no regular file", path)


def read(path: str, offset: int, limit: int) -> Optional[Tuple[bytes, str]]:
    """Return up to ``limit`` bytes and the identity of the file they are from; None if there is none."""
    for attempt in (1, 2):
        try:
            return _read(path, offset, limit)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ESTALE or attempt == 2:  # NFS: replaced on another machine while being opened
                raise
    raise AssertionError("unreachable")


def _read(path: str, offset: int, limit: int) -> Tuple[bytes, str]:
    parts = split(path)
    with walk(parts[:-1]) as parent:
        fd = open_file(parent.fd, parts[-1], path)
    try:
        status = os.fstat(fd)
        return b"".join(_pieces(fd, offset, limit)), "%d:%d" % (status.st_dev, status.st_ino)
    finally:
        os.close(fd)


def _pieces(fd: int, offset: int, limit: int) -> Iterator[bytes]:
    while limit > 0:
        data = os.pread(fd, limit, offset)
        if not data:
            return
        yield data
        offset += len(data)
        limit -= len(data)


def list_directory(path: str) -> Optional[List[str]]:
    """Return the names in a directory, sorted; None if there is none."""
    try:
        with walk(split(path)) as directory:
            return sorted(decode_text(name) for name in names(directory.fd, path))
    except FileNotFoundError:
        return None
