"""What a node's three accounts of its cards disagree on: our table, the kubelet's, and the processes that run there."""

EVERY = 15.0
"""Seconds between two looks: what two of them show is told within half a minute."""
