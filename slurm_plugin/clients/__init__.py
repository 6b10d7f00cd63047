"""How one speaks to Slurm: its commands, its REST daemon, its library."""
