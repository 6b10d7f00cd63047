"""The archive: the one file that runs on the site's machines, pod runner and host agent in a zipapp.

Built in memory from the installed sources, so it always is the one that belongs to this version; the same sources give
the same bytes everywhere, and its SHA-256 names it. Stored, not deflated: 0-10 % quicker to start
where measured, and its 200 KiB travel once per connection.
"""

import functools
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).parent
_FILES = ("__init__.py", "jobdir.py", "runner/**/*.py", "hostagent/**/*.py")
# The oldest time that a zip file can hold.
_TIME = (1980, 1, 1, 0, 0, 0)
# Before the archive itself comes its bytecode, where an earlier start has left it (runner.bytecode.place).
_MAIN = b"""import sys

sys.path.insert(0, "%s.%s-%x" % (sys.path[0], sys.implementation.cache_tag, sys.hexversion))

from slurm_plugin.runner.__main__ import main

sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True, slots=True)
class Archive:
    """A zipapp: ``python3 -I -S -B FILE run|watch|agent …``. ``digest`` is its SHA-256 in hexadecimal."""

    data: bytes
    digest: str


@functools.cache
def build() -> Archive:
    """Return the archive of this installation."""
    sources = {"__main__.py": _MAIN}
    for pattern in _FILES:
        for path in _PACKAGE.glob(pattern):
            sources[f"{_PACKAGE.name}/{path.relative_to(_PACKAGE).as_posix()}"] = path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # Unix, wherever it is built
            entry.external_attr = 0o444 << 16
            archive.writestr(entry, sources[name])
    data = buffer.getvalue()
    return Archive(data, hashlib.sha256(data).hexdigest())
