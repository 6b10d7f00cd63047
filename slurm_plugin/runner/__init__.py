"""The pod runner: the on-node half of a kubelet, a stdlib-only program for Python 3.6 or later.

It is shipped as one archive and started by the batch script on the job's first node.
"""
