"""A stand-in for the kubelet: one simulated node that speaks the real device-plugin protocol."""

from hami_testkit.cluster.kubelet.given import Given
from hami_testkit.cluster.kubelet.kubelet import Kubelet
from hami_testkit.cluster.kubelet.options import Options

__all__ = ["Given", "Kubelet", "Options"]
