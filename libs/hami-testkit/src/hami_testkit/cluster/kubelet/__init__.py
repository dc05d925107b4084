"""A stand-in for the kubelet: one simulated node that speaks the real device-plugin protocol."""

from hami_testkit.cluster.kubelet.kubelet import Kubelet

__all__ = ["Kubelet"]
