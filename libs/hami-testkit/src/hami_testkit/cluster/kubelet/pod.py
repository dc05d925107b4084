"""A pod's spec as the kubelet reads it; pure.

One rule: containers come in the order of admission, init containers first.
"""

import contextlib
import shlex
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct

from hami_testkit.cluster import quantities
from hami_testkit.cluster.kubelet.options import EXIT_CODE, INIT_SECONDS, RUN_SECONDS, STOP_SECONDS
from hami_testkit.cluster.status import Json

SHELLS = {"sh", "bash", "ash"}


class Role(Enum):
    """What kind of container it is."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"


class Script(Struct, frozen=True):
    """How a container runs: for how long (None: until it is told to stop), to which exit code, and for good or not."""

    seconds: float | None = None
    exit_code: int = 0
    final: bool = False
    """It is over then, whatever the pod's restartPolicy."""


def uid_of(pod: Json) -> str:
    """Return the pod's uid."""
    return str(pod["metadata"]["uid"])


def path_of(pod: Json) -> str:
    """Return where the API server keeps the pod."""
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def annotation(obj: Json, key: str) -> str | None:
    """Return an annotation of an object."""
    found = (obj["metadata"].get("annotations") or {}).get(key)
    return None if found is None else str(found)


def phase_of(pod: Json) -> str:
    """Return the pod's phase."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def has_ended(pod: Json) -> bool:
    """Say whether the pod is over for good."""
    return phase_of(pod) in {"Succeeded", "Failed"}


def is_deleted(pod: Json) -> bool:
    """Say whether somebody wants the pod gone."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def containers(pod: Json) -> list[tuple[Json, Role]]:
    """Return the containers in the order of admission, each with its role."""
    inits = pod["spec"].get("initContainers") or []
    roles = [(c, Role.SIDECAR if c.get("restartPolicy") == "Always" else Role.INIT) for c in inits]
    return roles + [(c, Role.MAIN) for c in pod["spec"]["containers"]]


def wanted(container: Json) -> dict[str, int]:
    """Return the extended resources that a container asks for, in the order of its limits."""
    limits: Mapping[str, Any] = (container.get("resources") or {}).get("limits") or {}
    return {name: int(quantities.parse(amount)) for name, amount in limits.items() if "/" in name}


def own_env(container: Json) -> dict[str, str]:
    """Return the literal environment of the spec; in the container it wins over a plugin's."""
    return {e["name"]: str(e.get("value") or "") for e in container.get("env") or [] if "valueFrom" not in e}


def stop_seconds(pod: Json) -> float:
    """Return how long the containers take to stop."""
    return float(annotation(pod, STOP_SECONDS) or 0)


def script_of(pod: Json, container: Json, role: Role) -> Script:
    """Return how a container runs: by the pod's annotations, else by its command.

    The commands understood are ``true``, ``false``, ``sleep N`` and ``exit N``, bare or after ``sh -c``. Any other runs
    until it is told to stop; an ordinary init container with another command ends at once and well.
    """
    if role is Role.INIT:
        asked = annotation(pod, INIT_SECONDS)
        return Script(float(asked)) if asked else _by_command(container) or Script(0.0)
    if asked := annotation(pod, RUN_SECONDS):
        return Script(float(asked), int(annotation(pod, EXIT_CODE) or 0), final=True)
    return _by_command(container) or Script()


def _by_command(container: Json) -> Script | None:
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    if len(words) == 3 and PurePosixPath(words[0]).name in SHELLS and words[1] == "-c":
        with contextlib.suppress(ValueError):
            words = shlex.split(words[2])
    match [PurePosixPath(words[0]).name, *words[1:]] if words else []:
        case ["true"]:
            return Script(0.0)
        case ["false"]:
            return Script(0.0, 1)
        case ["exit", code] if code.isdigit():
            return Script(0.0, int(code))
        case ["sleep", seconds] if seconds.replace(".", "", 1).isdigit():
            return Script(float(seconds))
    return None
