"""The kube-scheduler extender: /filter and /bind, translated to the bus."""
