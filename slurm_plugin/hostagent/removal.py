"""Removing a tree that somebody else filled, and may still be filling."""

import errno
import os
from typing import List

from .walking import Walk, names, split, temporary_name, walk

# How often a directory is looked at again that fills while it is being removed.
_ROUNDS = 100


def remove_tree(path: str) -> None:
    """Remove a directory and everything in it, following no symbolic link; none there is a no-op.

    OSError tells of the first thing that can't be removed; everything else is gone then.
    """
    parts = split(path)
    try:
        parent = walk(parts[:-1])
    except FileNotFoundError:
        return
    with parent:
        try:
            remove(parent, parts[-1])
        except OSError as error:
            raise OSError(error.errno, error.strerror, error.filename or path) from error


def remove(parent: Walk, name: bytes) -> None:
    """Empty the directory of this name and remove it; none there is a no-op.

    Directories inside are moved to its top before they are emptied: the depth of a tree, which its writer chose,
    costs neither stack nor descriptors.
    """
    with Walk(os.dup(parent.fd), parent.name) as top:
        try:
            top.enter(name)
        except FileNotFoundError:
            return
        for _ in range(_ROUNDS):
            failures: List[OSError] = []
            _empty(top, failures)
            if failures:
                raise failures[0]
            try:
                os.rmdir(name, dir_fd=parent.fd)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else: somebody still writes there
                    raise OSError(error.errno, error.strerror, top.name) from error
            else:
                return
    raise OSError(errno.ENOTEMPTY, "is being written to while it is removed", parent.path(name))


def _empty(top: Walk, failures: List[OSError]) -> None:
    """Remove everything in a directory, level by level. What can't be removed is added to ``failures``."""
    _permit(top)
    waiting = _clear(top, top, failures)
    while waiting:
        name = waiting.pop()
        try:
            with Walk(os.dup(top.fd), top.name) as directory:
                directory.enter(name)
                _permit(directory)
                waiting += _clear(directory, top, failures)
            os.rmdir(name, dir_fd=top.fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                failures.append(OSError(error.errno, error.strerror, top.path(name)))


def _permit(directory: Walk) -> None:
    """Give this user the rights to empty a directory of its own."""
    status = os.fstat(directory.fd)
    if status.st_uid == os.geteuid() and status.st_mode & 0o700 != 0o700:
        os.chmod("/proc/self/fd/%d" % directory.fd, 0o700)  # fchmod takes no O_PATH descriptor


def _clear(directory: Walk, top: Walk, failures: List[OSError]) -> List[bytes]:
    """Unlink the files of a directory and move its directories to ``top``; return their names there."""
    moved = []
    for name in names(directory.fd, directory.name):
        try:
            try:
                os.unlink(name, dir_fd=directory.fd)
                continue
            except IsADirectoryError:
                pass
            if directory is top:
                moved.append(name)
                continue
            with Walk(os.dup(directory.fd), directory.name) as child:
                child.enter(name)
                _permit(child)  # moving a directory writes to its ".."
            fresh = temporary_name("remove")
            os.rename(name, fresh, src_dir_fd=directory.fd, dst_dir_fd=top.fd)
            moved.append(fresh)
        except FileNotFoundError:
            pass
        except OSError as error:
            failures.append(OSError(error.errno, error.strerror, directory.path(name)))
    return moved
