"""Builders, fakes, the stand-in cluster, a kubelet that speaks the device-plugin protocol, the demo."""
