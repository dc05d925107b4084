"""A scheduler extender as kube-scheduler calls it: the exact wire format, and what each bad answer means.

One rule: keys are capitalised Go names, the pod inside is ordinary JSON without kind and apiVersion, and both
``Nodes`` and ``NodeNames`` are always present, one of them null.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml
from hami_kit.setting_values import read_duration

from hami_testkit.cluster.defaults import names_resource
from hami_testkit.cluster.status import Json


class ExtenderError(Exception):
    """The extender did not answer as it should; the text is kube-scheduler's."""


HAMI_RESOURCES = frozenset(
    f"{domain}/{name}"
    for domain, names in {
        "nvidia.com": "gpu gpumem gpucores gpumem-percentage priority",
        "cambricon.com": "vmlu mlu.smlu.vmemory mlu.smlu.vcore",
        "hygon.com": "dcunum dcumem dcucores",
        "metax-tech.com": "gpu sgpu vcore vmemory",
        "mthreads.com": "vgpu sgpu-memory sgpu-core",
        "enflame.com": "drs-gcu gcu-memory gcu-core gcu",
        "kunlunxin.com": "xpu vxpu vxpu-memory",
        "aws.amazon.com": "neuron neuroncore",
        "vastaitech.com": "va",
        "birentech.com": "gpu",
        "amd.com": "gpu gpumem gpucores",
    }.items()
    for name in names.split()
)
"""What HAMi's chart names as managed without Ascend and Iluvatar, and the four device names that it forgets."""


def hami_extender(url: str, *, http_timeout: float = 30, also: Iterable[str] = ()) -> Extender:
    """Return the extender as HAMi's chart configures it; ``also`` names further managed resources."""
    names = HAMI_RESOURCES | frozenset(also)
    return Extender(url=url, http_timeout=http_timeout, managed=names, ignored=names)


class Extender(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``extenders`` in a KubeSchedulerConfiguration."""

    url: str
    filter_verb: str = "filter"
    bind_verb: str = "bind"
    prioritize_verb: str = ""
    http_timeout: float = 30
    node_cache_capable: bool = True
    ignorable: bool = False
    weight: int = 1
    managed: frozenset[str] = frozenset()
    """The resources whose pods it is asked about; empty: all pods."""
    ignored: frozenset[str] = frozenset()
    """Those of them that the scheduler itself does not count."""
    verify: bool = True

    def is_asked_about(self, pod: Json) -> bool:
        """Say whether the pod names a managed resource."""
        return not self.managed or names_resource(pod, self.managed)


class Verdict(msgspec.Struct, frozen=True):
    """What a filter call left: nodes that fit, and why the others do not."""

    nodes: list[str]
    failed: dict[str, str]
    unresolvable: dict[str, str]


class ExtenderClient:
    """Calls one extender."""

    def __init__(self, extender: Extender, session: aiohttp.ClientSession) -> None:
        self.extender = extender
        self._session = session
        self._ssl: ssl.SSLContext | bool = extender.verify

    async def filter(self, pod: Json, nodes: Sequence[Json]) -> Verdict:
        """Ask which of the nodes fit."""
        names = [node["metadata"]["name"] for node in nodes]
        answer = await self._post("filter", self.extender.filter_verb, self._arguments(pod, nodes))
        if error := answer.get("error"):
            raise ExtenderError(str(error))
        if self.extender.node_cache_capable and answer.get("nodenames") is not None:
            fitting = list(answer["nodenames"])
        else:
            fitting = [node["metadata"]["name"] for node in (answer.get("nodes") or {}).get("items") or []]
        if strange := set(fitting) - set(names):
            text = f'extender "{self.extender.url}" claims a filtered node "{min(strange)}" which is not found in the '
            raise ExtenderError(text + "input node list")
        return Verdict(fitting, answer.get("failednodes") or {}, answer.get("failedandunresolvablenodes") or {})

    async def prioritize(self, pod: Json, nodes: Sequence[Json]) -> dict[str, int]:
        """Ask for scores; an extender that fails here is passed over."""
        if not self.extender.prioritize_verb:
            return {}
        try:
            scores = await self._post("prioritize", self.extender.prioritize_verb, self._arguments(pod, nodes))
        except ExtenderError:
            return {}
        return {score["Host"]: int(score["Score"]) * self.extender.weight * 10 for score in scores["list"]}

    async def bind(self, pod: Json, node: str) -> None:
        """Ask the extender to bind the pod."""
        meta = pod["metadata"]
        named = {"PodName": meta["name"], "PodNamespace": meta["namespace"], "PodUID": meta["uid"], "Node": node}
        answer = await self._post("bind", self.extender.bind_verb, named)
        if error := answer.get("error"):
            raise ExtenderError(str(error))

    def _arguments(self, pod: Json, nodes: Sequence[Json]) -> Json:
        bare = {key: value for key, value in pod.items() if key not in ("kind", "apiVersion")}
        if self.extender.node_cache_capable:
            return {"Pod": bare, "Nodes": None, "NodeNames": [node["metadata"]["name"] for node in nodes]}
        items = [{key: value for key, value in node.items() if key not in ("kind", "apiVersion")} for node in nodes]
        return {"Pod": bare, "Nodes": {"metadata": {}, "items": items}, "NodeNames": None}

    async def _post(self, action: str, verb: str, arguments: Json) -> Json:
        url = f"{self.extender.url.rstrip('/')}/{verb}"
        headers = {"Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=self.extender.http_timeout)
        body = msgspec.json.encode(arguments)
        try:
            async with self._session.post(url, data=body, headers=headers, timeout=timeout, ssl=self._ssl) as answer:
                if answer.status != 200:
                    raise ExtenderError(f"failed {action} with extender at URL {url}, code {answer.status}")
                found = msgspec.json.decode(await answer.read())
        except TimeoutError as error:
            text = f'Post "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
            raise ExtenderError(text) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ExtenderError(f'Post "{url}": {error}') from error
        except msgspec.DecodeError as error:
            raise ExtenderError(f"invalid answer: {error}") from error
        return {key.lower(): value for key, value in found.items()} if isinstance(found, dict) else {"list": found}


def from_scheduler_config(path: Path) -> tuple[str, Extender | None]:
    """Return the scheduler's name and its extender, from the file that a real kube-scheduler reads."""
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    name = str((config.get("profiles") or [{}])[0].get("schedulerName", "default-scheduler"))
    entries = config.get("extenders") or []
    return name, _from_entry(entries[0]) if entries else None


def _from_entry(entry: dict[str, Any]) -> Extender:
    managed = entry.get("managedResources") or []
    return Extender(
        url=entry["urlPrefix"],
        filter_verb=entry.get("filterVerb", ""),
        bind_verb=entry.get("bindVerb", ""),
        prioritize_verb=entry.get("prioritizeVerb", ""),
        http_timeout=read_duration(str(entry.get("httpTimeout", "0"))) or 5,
        node_cache_capable=entry.get("nodeCacheCapable", False),
        ignorable=entry.get("ignorable", False),
        weight=entry.get("weight", 1),
        managed=frozenset(resource["name"] for resource in managed),
        ignored=frozenset(resource["name"] for resource in managed if resource.get("ignoredByScheduler")),
        verify=not (entry.get("tlsConfig") or {}).get("insecure", False),
    )
