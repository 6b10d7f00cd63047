"""Objects → what a pod gets from them (``contract.PodContent``): environments, files of volumes, claims, logins. Pure.

Where the objects come from is somebody else's: the agent fetches them, an interLink virtual kubelet sends them along.
"""
