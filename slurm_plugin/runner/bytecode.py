"""The archive's modules compiled for this very Python, kept beside the archive: compiling them takes 40 ms of a pod's start.

Python compiles what it imports from a zip file anew each time. Whoever first runs the archive with some Python leaves the
result in a file that is named for that Python exactly; the archive's ``__main__`` looks there first. It belongs to the
same user and lies in the same closed directory as the archive and the pods' plans.
"""

import importlib.util
import marshal
import os
import struct
import sys

_NEVER_CHECKED = struct.pack("<IQ", 0b01, 0)  # PEP 552, Python 3.7: no source is asked for
_NO_SOURCE = struct.pack("<II", 0, 0)


def place(archive: str) -> str:
    """Return where this Python's bytecode of an archive is; ``archive.build`` writes the same rule into ``__main__``."""
    return "%s.%s-%x" % (archive, sys.implementation.cache_tag, sys.hexversion)


def keep() -> None:
    """Leave the bytecode for the next start, unless it is there already. A file system that refuses is no error."""
    archive = getattr(__spec__.loader, "archive", "")
    if not archive.endswith(".pyz") or os.path.exists(place(archive)):
        return  # what runs is no archive, or the bytecode itself
    temporary = "%s.%s.%d.tmp" % (place(archive), os.uname().nodename, os.getpid())
    try:
        try:
            _write(archive, temporary)
            os.rename(temporary, place(archive))
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
    except OSError as error:
        sys.stderr.write("slurmlet: can't keep the archive's bytecode, starts stay slow: %s\n" % error)


def _write(archive: str, path: str) -> None:
    import zipfile  # which the other starts need not wait for

    header = importlib.util.MAGIC_NUMBER + (_NEVER_CHECKED if sys.version_info >= (3, 7) else _NO_SOURCE)
    with zipfile.ZipFile(archive) as sources, zipfile.ZipFile(path, "w") as compiled:
        for name in sources.namelist():
            if name != "__main__.py":
                code = compile(sources.read(name), "%s/%s" % (archive, name), "exec", dont_inherit=True)
                compiled.writestr(name + "c", header + marshal.dumps(code))
