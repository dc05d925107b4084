"""The story of a run in words: what was sent and what was written, a line each."""

from typing import Any

from tests.simulation.store import Change


def short(body: Any) -> str:
    """Say what a request asks for."""
    if "target" in body:
        return f"to {body['target']['name']} at {body['metadata'].get('resourceVersion')}"
    meta = body["metadata"]
    return " ".join(f"{key.rpartition('/')[2]}={value}" for key, value in (meta.get("annotations") or {}).items())[:120]


def what_happened(change: Change) -> str:
    """Say what a write did, in one line."""
    obj, old = change.new or change.old or {}, change.old or {}
    meta, spec = obj["metadata"], obj.get("spec", {})
    name = f"{change.kind.removesuffix('s')} {meta['name']} ({meta['uid']})"
    if change.new is None:
        return f"{name} is gone"
    if change.old is None:
        asked = [c["resources"]["limits"] for c in spec.get("containers", ())]
        return f"{name} is created {asked or ''}"
    if spec.get("nodeName") != old.get("spec", {}).get("nodeName"):
        given = [text for key, text in meta["annotations"].items() if key.endswith("-allocated")]
        return f"{name} is bound to {spec['nodeName']}: {given}"
    if obj.get("status") != old.get("status"):
        return f"{name} is {obj['status'].get('phase')}"
    before, after = old["metadata"].get("annotations") or {}, meta.get("annotations") or {}
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if keys:
        return f"{name} has {', '.join(f'{key}={str(after.get(key))[:60]}' for key in keys)}"
    return f"{name} changes" + (" (being deleted)" if "deletionTimestamp" in meta else "")
