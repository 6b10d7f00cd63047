"""The Slurm cluster on the site: munge, MariaDB, slurmdbd, one slurmd per node, slurmctld, slurmrestd.

Each is started in the foreground as its own user, in the order in which they need each other. slurmctld comes last: with
limits enforced it is fatal for it to find no associations.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from testbed import processes
from testbed.errors import TestbedError
from testbed.paths import Layout
from testbed.ports import ADDRESS, Port
from testbed.site import configuration, users
from testbed.site.namespace import Namespace

_MARIADB_SOCKET = "/run/mysqld/mysqld.sock"
_DATA = "/var/lib/mysql"
_ACCOUNTED = "/var/lib/slurmlet/accounting-made"
_SLURMDS = tuple(f"slurmd-{node.name}" for node in configuration.NODES)

DAEMONS = ("munged", "mariadbd", "slurmdbd", *_SLURMDS, "slurmctld", "slurmrestd")
"""In the order in which they start; they stop in the opposite one."""


class Slurm:
    """The cluster in one site namespace, which must be up. With ``cgroups`` the kernel keeps its jobs to their resources."""

    def __init__(self, layout: Layout, namespace: Namespace, version: str, *, cgroups: bool) -> None:
        self._layout = layout
        self._site = namespace
        self._version = version
        self._cgroups = cgroups

    def ensure(self) -> None:
        """Start what does not run and return when every node can take jobs; idempotent, repairs a daemon that died.

        Raises:
            TestbedError: a daemon does not come up; the end of its log follows.
        """
        self._directories()
        self._configure()
        self._site.start("munged", ("munged", "--foreground", "--num-threads=4"), user=users.MUNGE)
        self._start_mariadb()
        self._wait("munged", lambda: self._site.run(("munge", "--no-input")).returncode == 0)
        self._make_database()
        self._site.start("slurmdbd", ("slurmdbd", "-D"), user=users.SLURM)
        for node in configuration.NODES:
            self._site.start(f"slurmd-{node.name}", ("slurmd", "-D", "-N", node.name))
        self._wait("slurmdbd", lambda: self._site.run(("sacctmgr", "--noheader", "show", "cluster")).returncode == 0)
        self._account()
        self._site.start("slurmctld", ("slurmctld", "-D"), user=users.SLURM)
        self._start_slurmrestd()
        self._wait("slurmctld", lambda: not self._unusable())
        self._wait("slurmrestd", lambda: _listens(self._layout.port(Port.SLURMRESTD)))

    def stop(self) -> None:
        """Stop the daemons; jobs are ended with the namespace. A no-op when none runs."""
        for name in reversed(DAEMONS):
            processes.stop(self._layout, name)

    def status(self) -> list[tuple[str, str]]:
        """Return each daemon with `running` or `not running`; asks the processes only, so it never waits for Slurm."""
        return [(name, "running" if processes.alive(self._layout, name) else "not running") for name in DAEMONS]

    @property
    def slurmrestd_url(self) -> str:
        """Where slurmrestd answers; tokens come from `scontrol token`."""
        return f"http://{self._layout.endpoint(Port.SLURMRESTD)}"

    def _directories(self) -> None:
        site = self._site
        site.directory("/run/munge", owner=users.MUNGE)
        site.directory("/run/mysqld", owner=users.MYSQL)
        site.directory("/run/slurm", owner=users.SLURM)
        site.directory(configuration.STATE, owner=users.SLURM, mode=0o700)
        for node in configuration.NODES:
            site.directory(f"{configuration.SPOOL}/{node.name}")
            site.directory(f"/tmp/{node.name}", mode=0o1777)  # noqa: S108  the site's, not ours

    def _configure(self) -> None:
        site, layout = self._site, self._layout
        for path, owner in (("/etc/munge/munge.key", users.MUNGE), (configuration.JWT_KEY, users.SLURM)):
            if not site.exists(path):
                site.write(path, os.urandom(128), owner=owner, mode=0o400)
        directory = configuration.DIRECTORY
        site.write(configuration.SLURM_CONF, configuration.slurm_conf(layout, cgroups=self._cgroups))
        site.write(f"{directory}/gres.conf", configuration.gres_conf())
        cgroup_conf = configuration.cgroup_conf(self._version, cgroups=self._cgroups)
        site.write(f"{directory}/cgroup.conf", cgroup_conf)
        site.write(f"{directory}/slurmdbd.conf", configuration.slurmdbd_conf(layout), owner=users.SLURM, mode=0o600)

    def _start_mariadb(self) -> None:
        if not self._site.exists(f"{_DATA}/mysql"):  # Debian's package makes it in some suites only
            self._site.directory(_DATA, owner=users.MYSQL, mode=0o700)
            options = ("--no-defaults", f"--user={users.MYSQL}", f"--datadir={_DATA}", "--skip-test-db")
            self._site.check(("mariadb-install-db", *options))
        self._site.start(
            "mariadbd",
            (
                *("mariadbd", "--no-defaults", f"--user={users.MYSQL}", f"--datadir={_DATA}"),
                *(f"--socket={_MARIADB_SOCKET}", "--pid-file=/run/mysqld/mysqld.pid"),
                *(f"--port={self._layout.port(Port.MARIADB)}", f"--bind-address={ADDRESS}", "--skip-name-resolve"),
                # Nothing here must survive a power cut; slurmdbd wants the last two.
                *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=128M"),
                # Newer MariaDB refuses what slurmdbd does, unless told otherwise; older does not know the option.
                *("--innodb-lock-wait-timeout=900", "--loose-innodb-snapshot-isolation=OFF"),
            ),
        )

    def _make_database(self) -> None:
        client = ("mariadb", "--no-defaults", f"--socket={_MARIADB_SOCKET}", "--user=root")
        sql = configuration.database_sql()
        self._wait("mariadbd", lambda: self._site.run(client, text=sql).returncode == 0)

    def _account(self) -> None:
        if self._site.exists(_ACCOUNTED):
            return
        for command in configuration.accounting():
            done = self._site.run(("sacctmgr", "--immediate", *command))
            # A former, interrupted run may have made it; sacctmgr calls that an error.
            if done.returncode and "already exist" not in (said := done.stdout + done.stderr).lower():
                raise TestbedError(f"`sacctmgr {' '.join(command)}` failed: {said.strip()}")
        self._site.write(_ACCOUNTED, "")

    def _start_slurmrestd(self) -> None:
        self._site.start(
            "slurmrestd",
            ("slurmrestd", "-a", "rest_auth/jwt", self._layout.endpoint(Port.SLURMRESTD)),
            user=users.SLURMREST,
            environment={"SLURM_JWT": "daemon"},
        )

    def _unusable(self) -> list[str]:
        """Return the nodes that cannot take jobs yet, in sinfo's words; all of them while slurmctld is silent."""
        if self._site.run(("scontrol", "ping")).returncode:
            return ["slurmctld"]
        return unusable(self._site.run(("sinfo", "--noheader", "--Node", "--format=%N %T")).stdout)

    def _wait(self, name: str, check: Callable[[], bool]) -> None:
        def checked() -> bool:
            processes.require(self._layout, name)
            return check()

        processes.wait_until(f"{name} answers", checked, timeout_seconds=40, log=self._layout.log(name))


def _listens(port: int) -> bool:
    try:
        socket.create_connection((ADDRESS, port), timeout=1).close()
    except OSError:
        return False
    return True


def unusable(sinfo: str) -> list[str]:
    """Pick from lines `node state` the nodes that take no jobs: unknown, down or (`*`) not responding; all if there is none.

    A node drained by hand is as its owner wants it, so it counts as usable. States: sinfo(1), NODE STATE CODES.
    """
    lines = sorted(set(sinfo.splitlines()))
    if not lines:
        return [node.name for node in configuration.NODES]
    return [line for line in lines if line.endswith("*") or line.split()[1] in {"unknown", "down", "future", "inval"}]
