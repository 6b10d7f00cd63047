"""Slurm by its REST daemon, slurmrestd: API versions v0.0.38 (Slurm 22.05) to v0.0.45 (26.05).

``directives`` and ``submission`` make a job description of a batch script, ``reading`` reads answers of every version,
``failures`` judges errors: all pure. ``tokens`` and ``connection`` are the way there, ``queue`` asks for no more than has
changed, and ``client`` is the SlurmClient made of these.
"""
