"""The registry: every vendor that the device config names, as one catalog."""

from hami_model.catalog import Catalog
from hami_model.config import DeviceConfig
from hami_model.vendors import amd, awsneuron, biren, cambricon, hygon, mthreads, nvidia, vastai
from hami_model.vendors import ascend as ascend_family
from hami_model.vendors import enflame as enflame_family
from hami_model.vendors import iluvatar as iluvatar_family
from hami_model.vendors import kunlun as kunlun_family
from hami_model.vendors import metax as metax_family


def build(config: DeviceConfig, *, ascend: bool, iluvatar: bool) -> Catalog:
    """Build the catalog; Ascend and Iluvatar chips only where they are switched on, as in HAMi."""
    vendors = [
        *([nvidia.vendor(config.nvidia)] if config.nvidia else []),
        *([cambricon.vendor(config.cambricon)] if config.cambricon else []),
        *([hygon.vendor(config.hygon)] if config.hygon else []),
        *(iluvatar_family.vendors(config.iluvatars) if iluvatar else []),
        *([mthreads.vendor(config.mthreads)] if config.mthreads else []),
        *(metax_family.vendors(config.metax) if config.metax else []),
        *(kunlun_family.vendors(config.kunlun) if config.kunlun else []),
        *(enflame_family.vendors(config.enflame) if config.enflame else []),
        *([awsneuron.vendor(config.awsneuron)] if config.awsneuron else []),
        *([amd.vendor(config.amd)] if config.amd else []),
        *([vastai.vendor(config.vastai)] if config.vastai else []),
        *([biren.vendor(config.biren)] if config.biren else []),
        *(ascend_family.vendors(config.vnpus) if ascend and config.vnpus else []),
    ]
    return Catalog.of(vendors)
