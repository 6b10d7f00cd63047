"""What Python encodes a container's words with: UTF-8, whatever the job's locale says.

Arguments, environment and paths go to the system in the locale's encoding, and a job has no locale: Python 3.6 then takes
ASCII, later ones too where a site's locale is of another encoding. It is fixed at a process's start.
"""

import locale
import os
import sys

_LOCALES = ("C.UTF-8", "C.utf8", "en_US.UTF-8")  # the last one where glibc has no other, as in RHEL 7


def speak_utf8() -> None:
    """Start this program anew in a locale of UTF-8; does not return then. Where there is none it does, and says so."""
    for name in _LOCALES:
        try:
            locale.setlocale(locale.LC_CTYPE, name)
        except locale.Error:
            continue
        if os.environ.get("LC_ALL") == name:
            break  # it was tried
        with open("/proc/self/cmdline", "rb") as stream:
            words = stream.read().split(b"\0")[:-1]
        os.execve(sys.executable, words, dict(os.environ, LC_ALL=name))  # noqa: S606
    sys.stderr.write("slurmlet: no locale of UTF-8 on this node: words beyond ASCII can't be given to containers\n")
