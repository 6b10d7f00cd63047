"""The kubelet's HTTPS API: thin handlers over what the rest of vkubelet knows."""
