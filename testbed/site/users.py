"""Who lives on the site: three ordinary people and the daemons' own accounts."""

from __future__ import annotations

import dataclasses

SLURM = "slurm"
MUNGE = "munge"
MYSQL = "mysql"
SLURMREST = "slurmrest"
"""slurmrestd refuses to run as root and as SlurmUser, so it has an account of its own."""
SERVICE = "slurmlet"
"""A service's account without any rights but to become the people, by sudo's rule of docs/install.md."""
SERVICE_HOME = "/var/lib/slurmlet"


@dataclasses.dataclass(frozen=True, slots=True)
class Person:
    """An ordinary account, and the Slurm accounts it may charge (the first is its default)."""

    name: str
    uid: int
    accounts: tuple[str, ...]

    @property
    def home(self) -> str:
        """Return the home directory, as the site sees it."""
        return f"/home/{self.name}"


ALICE = Person("alice", 2001, ("physics", "chemistry"))
BOB = Person("bob", 2002, ("physics",))
CAROL = Person("carol", 2003, ("chemistry",))
PEOPLE = (ALICE, BOB, CAROL)

ACCOUNTS = ("physics", "chemistry")
