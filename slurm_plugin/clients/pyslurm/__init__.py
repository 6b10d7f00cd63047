"""Slurm through its own library, by way of pyslurm.

pyslurm is a layer over libslurm: it holds Python's lock while Slurm answers, and Slurm's fatal errors end its process. So it
lives in a process of its own (``library``), as the Host's user, and is spoken to in lines (``child``). What is said is pure:
``submission``, ``reading``, ``failures``. The layer is compiled against one release of Slurm: which, is checked before
anything is asked.
"""
