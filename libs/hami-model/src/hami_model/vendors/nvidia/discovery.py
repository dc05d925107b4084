"""Which NVIDIA cards a node publishes."""

from msgspec import structs

from hami_model.device import Device
from hami_model.objects import Node
from hami_model.register import decode_links, decode_register
from hami_model.vendor import Vendor


def discover(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    """Read the register annotation and the pair scores beside it; raise ``MalformedInventory``."""
    text = node.annotations.get(vendor.keys.register)
    if text is None:
        return ()
    devices = decode_register(text, vendor.word)
    scores = node.annotations.get(vendor.keys.links)
    if scores is None:
        return devices
    links = decode_links(scores)
    return tuple(structs.replace(device, links=links.get(device.id, {})) for device in devices)
