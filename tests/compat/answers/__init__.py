"""Our answers where HAMi's recorded one is a known weakness (docs/reference/differences-from-hami.md), by vendor.

One rule: a vendor takes part in every test against the vectors as soon as it stands here.
"""

from collections.abc import Iterator
from typing import Any

from tests.compat import rules
from tests.compat.answers import (
    amd,
    ascend,
    awsneuron,
    biren,
    cambricon,
    enflame,
    hygon,
    iluvatar,
    kunlun,
    metax,
    mixed,
    mthreads,
    nvidia,
    vastai,
)
from tests.compat.answers.answers import Answers

ALL: dict[str, Answers] = {
    "nvidia": nvidia.ANSWERS,
    "cambricon": cambricon.ANSWERS,
    "hygon": hygon.ANSWERS,
    "iluvatar": iluvatar.ANSWERS,
    "mthreads": mthreads.ANSWERS,
    "metax": metax.ANSWERS,
    "kunlun": kunlun.ANSWERS,
    "enflame": enflame.ANSWERS,
    "awsneuron": awsneuron.ANSWERS,
    "amd": amd.ANSWERS,
    "vastai": vastai.ANSWERS,
    "biren": biren.ANSWERS,
    "ascend": ascend.ANSWERS,
    "mixed": mixed.ANSWERS,
}

VENDORS = tuple(ALL)


def recorded(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk the recorded cases of a kind (``schedule``, ``webhook``), each with its vendor."""
    for vendor, ours in ALL.items():
        for case in _cases(f"{kind}/{vendor}.json"):
            if kind != "schedule" or case["name"] not in ours.overruled:
                yield vendor, case


def known_weaknesses(kind: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the recorded cases in which HAMi's answer is a known weakness, by vendor and name."""
    found = {(vendor, case["name"]): case for vendor in ALL for case in _cases(f"differences/{kind}-{vendor}.json")}
    for vendor, ours in ALL.items():
        cases = _cases(f"{kind}/{vendor}.json") if kind == "schedule" else []
        found |= {(vendor, case["name"]): case for case in cases if case["name"] in ours.overruled}
    return found


def _cases(path: str) -> list[dict[str, Any]]:
    return list(rules.cases(path)) if (rules.VECTORS / path).is_file() else []
