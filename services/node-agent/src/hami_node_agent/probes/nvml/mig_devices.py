"""A card's MIG devices, which is what containers see of its instances, and who computes on them.

One rule: who computes is None where the driver does not say, and never nobody.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pynvml as nv

from hami_node_agent.probes.nvml.calls import or_none

ABSENT = (nv.NVML_ERROR_NOT_FOUND, nv.NVML_ERROR_INVALID_ARGUMENT, nv.NVML_ERROR_NOT_SUPPORTED)
"""How the driver says that something is not there."""


def devices(card: Any) -> Iterator[tuple[int, dict[int, str]]]:
    """Yield for each GPU instance its compute instances with their MIG uuids."""
    found: dict[int, dict[int, str]] = {}
    for device in _handles(card):
        instance, compute = nv.nvmlDeviceGetGpuInstanceId(device), nv.nvmlDeviceGetComputeInstanceId(device)
        found.setdefault(instance, {})[compute] = nv.nvmlDeviceGetUUID(device)
    yield from found.items()


def processes(card: Any) -> frozenset[int] | None:
    """Return who computes or draws on a card or any of its instances."""
    with suppress(nv.NVMLError):
        return frozenset(pid for device in (card, *_handles(card)) for pid, _ in _running(device))
    return None


def processes_on(card: Any, instance: int) -> frozenset[int] | None:
    """Return who computes or draws on one GPU instance."""
    with suppress(nv.NVMLError):
        mine = [device for device in _handles(card) if nv.nvmlDeviceGetGpuInstanceId(device) == instance]
        of_card = {pid for pid, on in _running(card) if on == instance}
        return frozenset(of_card.union(*({pid for pid, _ in _running(device)} for device in mine)))
    return None


def _handles(card: Any) -> Iterator[Any]:
    for index in range(nv.nvmlDeviceGetMaxMigDeviceCount(card)):
        try:
            yield nv.nvmlDeviceGetMigDeviceHandleByIndex(card, index)
        except nv.NVMLError as e:
            if e.value not in ABSENT:
                raise


def _running(device: Any) -> Iterator[tuple[int, int]]:
    """Yield each process with the GPU instance that it is on."""
    computing = nv.nvmlDeviceGetComputeRunningProcesses(device)
    drawing = or_none(nv.nvmlDeviceGetGraphicsRunningProcesses, device) or ()
    for process in (*computing, *drawing):
        yield int(process.pid), int(process.gpuInstanceId)
