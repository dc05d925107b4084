"""``hamictl doctor``: everything that can be wrong with a cluster and with the installation in it.

One rule: what cannot be looked at is said, and never taken for fine.
"""
