"""What a pod's annotations say about the cards it may have.

One rule: an empty value is no constraint; a value that names nothing (such as ``,``) allows nothing.
"""

from hami_model.objects import Pod
from hami_model.vendor import Constraints, Vendor


def listed(text: str | None) -> tuple[str, ...] | None:
    """Split a comma list into its trimmed, non-empty items; None for an absent or blank text."""
    if text is None or not text.strip():
        return None
    return tuple(item for part in text.split(",") if (item := part.strip()))


def constraints(vendor: Vendor, pod: Pod) -> Constraints:
    """Resolve the vendor's use and no-use lists; model names come upper-cased, as they are compared."""
    annotations, keys = pod.annotations, vendor.selectors
    return Constraints(
        use_models=_models(annotations.get(keys.use_model)),
        nouse_models=_models(annotations.get(keys.nouse_model)),
        use_uuids=_uuids(annotations.get(keys.use_uuid)),
        nouse_uuids=_uuids(annotations.get(keys.nouse_uuid)),
    )


def _models(text: str | None) -> tuple[str, ...] | None:
    items = listed(text)
    return None if items is None else tuple(item.upper() for item in items)


def _uuids(text: str | None) -> frozenset[str] | None:
    items = listed(text)
    return None if items is None else frozenset(items)
