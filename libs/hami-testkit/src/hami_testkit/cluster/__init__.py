"""The stand-in cluster: an API server, a scheduler and kubelets, small enough to read."""

from hami_testkit.cluster.simulated import Standin

__all__ = ["Standin"]
