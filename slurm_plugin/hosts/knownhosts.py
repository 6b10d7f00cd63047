"""known_hosts files, as sshd(8) defines them ("SSH_KNOWN_HOSTS FILE FORMAT"): which lines speak of a machine. Pure but for reading.

Names may be hashed (``|1|salt|hash``) or patterns (``*``, ``?``, ``!`` for "but not"), keys may be marked as those of a
certificate authority or as revoked. A line that makes no sense is an error that names it: a trust that is silently not
there would look like an attack, and a revocation that is silently not there would be one.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import HostError

Marker = Literal["", "@cert-authority", "@revoked"]
_MARKERS: dict[str, Marker] = {"@cert-authority": "@cert-authority", "@revoked": "@revoked"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line. ``place`` is its file and number, ``key`` the key in SSH's own encoding."""

    place: str
    marker: Marker
    names: tuple[str, ...]
    key_type: str
    key: bytes

    @property
    def fingerprint(self) -> str:
        """The key as people compare it."""
        return f"{self.key_type} {fingerprint(self.key)}"

    def speaks_of(self, name: str) -> bool:
        """Whether a machine, as known_hosts spells it, is meant: by one of the names, and by none with a ``!``."""
        name = name.lower()
        if any(each.startswith("!") and _matches(each[1:], name) for each in self.names):
            return False
        return any(not each.startswith("!") and _matches(each, name) for each in self.names)


def fingerprint(key: bytes) -> str:
    """Return a key's fingerprint as ssh-keygen(1) prints it."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip('=')}"


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):
        return _hashed(pattern, name)
    return matches_pattern(pattern.lower(), name)


def matches_pattern(pattern: str, name: str) -> bool:
    """Whether a pattern of ssh_config(5) fits: ``*`` is anything, ``?`` one character, all else itself."""
    words = (".*" if each == "*" else "." if each == "?" else re.escape(each) for each in pattern)
    return re.fullmatch("".join(words), name, re.DOTALL) is not None


def _hashed(pattern: str, name: str) -> bool:
    try:
        _, _, salt, expected = pattern.split("|")
        wanted = base64.b64decode(expected, validate=True)
        found = hmac.new(base64.b64decode(salt, validate=True), name.encode(), hashlib.sha1).digest()
    except (ValueError, binascii.Error):
        return False  # no name at all: it can match nothing
    return hmac.compare_digest(found, wanted)


def parse(text: str, file: str) -> tuple[Line, ...]:
    """Return the lines of a file. Raises HostError naming one that makes no sense."""
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if words and not words[0].startswith("#"):
            lines.append(_line(words, f"{file}, line {number}"))
    return tuple(lines)


def _line(words: list[str], place: str) -> Line:
    marker: Marker = ""
    if words[0].startswith("@"):
        if words[0] not in _MARKERS:
            raise HostError(f"{place}: {words[0]} is no marker; there are {' and '.join(_MARKERS)}")
        marker = _MARKERS[words[0]]
        words = words[1:]
    if len(words) < 3:
        raise HostError(f"{place}: expected host names, the type of a key, and the key")
    names, key_type, encoded = words[:3]
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise HostError(f"{place}: the {key_type} key is not whole: {error}") from error
    return Line(place, marker, tuple(names.split(",")), key_type, key)


def load(files: Iterable[str]) -> tuple[Line, ...]:
    """Read files. Raises HostError naming the one that can't be read."""
    lines: list[Line] = []
    for file in files:
        try:
            lines += parse(Path(file).read_text("utf-8"), file)
        except OSError as error:
            raise HostError(f"known_hosts file {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise HostError(f"known_hosts file {file}: not text: {error}") from error
    return tuple(lines)
