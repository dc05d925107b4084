"""Whose fault: ``DomainError`` is the caller's and becomes an answer; ``InvariantError`` is ours: never catch."""


class HamiError(Exception):
    """The root of all our errors; its text is one clear sentence."""


class DomainError(HamiError):
    """The caller's fault: names the field, the value and the way out."""


class BadDemand(DomainError):
    """A container asks in a way that cannot be read, such as ``nvidia.com/gpumem: 16Gi``."""


class Denied(DomainError):
    """A vendor's own check refuses the pod at admission (HAMi answers 500 with this text)."""


class MalformedInventory(DomainError):
    """A node publishes cards in a way that cannot be read; that node's vendor is rejected, nothing else."""


class MalformedAllocation(DomainError):
    """A pod's device annotation cannot be read."""


class BadMessage(DomainError):
    """A message of the bus is not what its type says; names the message and the field."""


class InvariantError(HamiError):
    """Our own books contradict themselves."""
