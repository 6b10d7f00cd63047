"""Everything about Slurm: pod to job, clients, job state to container state, the pod runner.

No Kubernetes API and no HTTP server live here. Python 3.6 syntax: this file is part of the runner's archive.
"""
