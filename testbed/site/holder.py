"""The process that keeps the HPC site's mount namespace alive: `python -m testbed.site.holder PLAN`.

It is started in a new, private mount namespace, runs the mounts of PLAN (JSON: `root`, `commands`), makes the tree
the root of that namespace and then sleeps. By pivot_root and not by chroot: the kernel refuses user namespaces to whoever has
another root than the namespace's (user_namespaces(7), EPERM), and Apptainer without root needs one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

READY = Path("/run/slurmlet-site")
"""Exists in the site once it can be entered."""


def main(plan_file: str) -> None:
    """Build the namespace and become `sleep`; never returns. A command that fails ends the process, and all mounts with it."""
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    os.umask(0o022)
    for command in plan["commands"]:
        subprocess.run(command, check=True)
    os.chdir(plan["root"])
    # The kernel moves the root of every process that stood on the old one, so also this process's: pivot_root(2).
    subprocess.run(["pivot_root", ".", ".old"], check=True)
    os.chdir("/")
    subprocess.run(["umount", "--lazy", "/.old"], check=True)
    READY.touch()
    os.execv("/usr/bin/sleep", ["slurmlet-site", "infinity"])  # noqa: S606  nothing of the old root may stay open


if __name__ == "__main__":
    main(sys.argv[1])
