"""A real Kubernetes control plane, a real Slurm site and an OCI registry on one machine, for demos and tests.

`python -m testbed up|down|status|env`; everything listens on loopback only. It imports nothing of the product.
"""
