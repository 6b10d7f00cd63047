"""The one command, ``slurmlet``: arguments and wiring only."""
