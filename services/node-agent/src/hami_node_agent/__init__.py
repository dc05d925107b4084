"""The node side: discovery, kubelet device plugin, limits, usage."""
