"""What the testbed's command line asks of its components."""

from typing import Protocol


class Component(Protocol):
    """A group of real servers: the control plane, the HPC site, the registry."""

    def ensure(self) -> None:
        """Install what is missing, start what does not run, return when it serves.

        Idempotent, quick when all runs, and the repair of a half-started component. Raises TestbedError.
        """

    def stop(self) -> None:
        """Stop and unmount what `ensure` started, and only that; idempotent."""

    def status(self) -> list[tuple[str, str]]:
        """The name and state of each of its parts, for people."""

    def environment(self) -> dict[str, str]:
        """Variables for a user's shell; the same whether it runs or not, unless it says otherwise."""
