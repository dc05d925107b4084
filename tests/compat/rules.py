"""How a recorded answer of HAMi is compared with ours: the rules that stand in ``vectors/README.md``.

One rule: nothing here decides anything; it flattens, drops what carries no meaning, and finds the first difference.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent / "vectors"

AS_JSON = ("metax-tech.com/gpu-devices-allocated", "hami.io/vgpu-mig-allocations", "assigned-containers")
GRANTS = ("-devices-allocated", "-devices-to-allocate")


def cases(path: str) -> list[dict[str, Any]]:
    """Read the recorded cases of one file under ``vectors/``."""
    recorded: list[dict[str, Any]] = json.loads((VECTORS / path).read_text())
    return recorded


def merged_config(defaults: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a case's ``settings.config`` into the device config; ``vnpus.chips`` holds changes by common word."""
    merged = deepcopy(dict(defaults))
    for section, values in changes.items():
        for key, value in values.items():
            if section == "vnpus" and key == "chips":
                for chip in merged["vnpus"]["configs"]:
                    chip.update(value.get(chip["commonWord"], {}))
            else:
                merged[section][key] = value
    return merged


def patched(document: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """Apply the RFC 6902 operations ``add``, ``replace`` and ``remove`` to a copy."""
    result = deepcopy(document)
    for operation in operations:
        *parents, last = [p.replace("~1", "/").replace("~0", "~") for p in operation["path"].split("/")[1:]]
        holder = result
        for part in parents:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        match operation["op"], holder:
            case "add", list():
                holder.insert(len(holder) if last == "-" else int(last), operation["value"])
            case "add", dict():
                holder[last] = operation["value"]
            case "replace", list():
                holder[int(last)] = operation["value"]
            case "replace", dict():
                holder[last]  # a replaced member must exist
                holder[last] = operation["value"]
            case "remove", list():
                del holder[int(last)]
            case "remove", dict():
                del holder[last]
            case other:
                raise ValueError(f"unknown operation {other}")
    return result


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Walk every leaf as JSON pointer and value; empty values are none."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from leaves(value, f"{path}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(document, list):
        for at, value in enumerate(document):
            yield from leaves(value, f"{path}/{at}")
    elif document is not None:
        yield path, document


def pod_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON pointer -> new value for every leaf that differs, ``None`` for a removed one."""
    old, new = dict(leaves(before)), dict(leaves(after))
    return {path: new.get(path) for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path)}


def comparable_changes(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, frozenset[tuple[str, str]]]]:
    """Split changes into the exact ones, and the environment by container as a set: its order is random in HAMi."""
    exact: dict[str, Any] = {}
    variables: dict[str, dict[str, dict[str, str]]] = {}
    for path, value in changes.items():
        container, env, entry = path.partition("/env/")
        if env:
            at, _, field = entry.partition("/")
            variables.setdefault(container, {}).setdefault(at, {})[field] = value
        else:
            exact[path] = value
    sets = {c: frozenset((e.get("name", ""), e.get("value", "")) for e in by.values()) for c, by in variables.items()}
    return exact, sets


def comparable_annotations(
    expected: Mapping[str, str], actual: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Bring recorded and actual annotations into comparable form; keys that the recording does not list are ignored."""
    wanted: dict[str, Any] = {}
    got: dict[str, Any] = {}
    for key, text in expected.items():
        is_empty = text.strip(";") == "" or text == "null"
        if is_empty and key not in actual:
            continue
        wanted[key] = "<time>" if text == "<time>" else _comparable(key, text)
        if key in actual:
            got[key] = "<time>" if text == "<time>" and actual[key].isdigit() else _comparable(key, actual[key])
    return wanted, got


def _comparable(key: str, text: str) -> Any:
    if key in AS_JSON or key.startswith("huawei.com/"):
        return json.loads(text)
    return text.rstrip(";") if key.endswith(GRANTS) else text
