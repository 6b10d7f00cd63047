"""link(): the one step that is atomic on every file system that nodes share."""

import os


def link(source: str, target: str) -> bool:
    """Return whether ``target`` is now our file. An NFS server may say EEXIST to the retry of a link it has made."""
    try:
        os.link(source, target)
    except FileExistsError:
        return os.stat(source).st_nlink > 1
    return True
