"""Where commands and files live: this machine, or a login node over SSH. Nothing here knows Slurm."""
