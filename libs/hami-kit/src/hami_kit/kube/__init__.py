"""Kubernetes: the API as few typed calls, watches that keep a view, the Lease; alone imports kubernetes_asyncio."""

from hami_kit.kube.client import Kube
from hami_kit.kube.wire import Lease, LeaseSpec, Listed

__all__ = ["Kube", "Lease", "LeaseSpec", "Listed"]
