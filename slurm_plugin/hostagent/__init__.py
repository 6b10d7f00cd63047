"""The host agent: the far half of a Host, on the login node, as one Slurm user.

A Python 3.6 program of the standard library alone that comes out of the archive and answers frames on its standard
input and output (``protocol``). It needs no file, no port and no right that the user has not. ``server`` dispatches,
``files``, ``following``, ``commands`` and ``processes`` do the work.
"""
