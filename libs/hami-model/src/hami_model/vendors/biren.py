"""Biren GPUs, whole or shared by as many pods as the node's plugin says.

One rule: cards are asked for by number alone (``counted``).
"""

from hami_model import counted, selectors
from hami_model.config import Names
from hami_model.keys import is_served
from hami_model.vendor import MUTEX_LOCK, AnnotationKeys, ResourceNames, Selectors, Vendor

WORD = "Biren"


def vendor(config: Names) -> Vendor:
    """Describe Biren under the names of the device config."""
    return Vendor(
        word=WORD,
        resources=ResourceNames(count=config.resource_count_name),
        keys=AnnotationKeys(
            register="hami.io/node-biren-register",
            handshake="hami.io/node-handshake-biren",
            to_allocate="hami.io/Biren-devices-to-allocate",
            allocated="hami.io/Biren-devices-allocated",
        ),
        selectors=Selectors(use_uuid="birentech.com/use-gpuuuid", nouse_uuid="birentech.com/nouse-gpuuuid"),
        lock=MUTEX_LOCK,
        ids_are_local=True,
        settings=config,
        demand=counted.demand,
        admit=counted.admit,
        discover=counted.discover,
        constraints=selectors.constraints,
        confirmed=is_served,
    )
