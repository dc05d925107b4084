"""MetaX GPUs: whole cards (``whole``), and shares of them (``sgpu``).

One rule: each form has a plugin, keys and resources of its own.
"""

from msgspec import structs

from hami_model.config import Metax
from hami_model.vendor import Vendor
from hami_model.vendors.metax import sgpu, whole


def vendors(config: Metax) -> tuple[Vendor, ...]:
    """Describe both forms under the names of the device config."""
    cards, shares = whole.vendor(config), sgpu.vendor(config)
    return structs.replace(cards, other_form=shares.word), structs.replace(shares, other_form=cards.word)
