"""Small helps for calls of nvidia-ml-py."""

from collections.abc import Callable
from typing import Any

import pynvml as nv

UNANSWERABLE = (nv.NVML_ERROR_NOT_SUPPORTED, nv.NVML_ERROR_FUNCTION_NOT_FOUND, nv.NVML_ERROR_INVALID_ARGUMENT)


def or_none(ask: Callable[..., Any], *arguments: Any) -> Any:
    """Ask what not every card or driver can answer; None where it cannot."""
    try:
        return ask(*arguments)
    except nv.NVMLError as e:
        if e.value in UNANSWERABLE:
            return None
        raise


def bus_id(pci: Any) -> str:
    """Return the PCI bus id as the kernel writes it, with NVML's long domain: ``00000000:3b:00.0``."""
    raw = pci.busId
    return (raw.decode() if isinstance(raw, bytes) else str(raw)).lower()
