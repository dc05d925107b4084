"""A network for the pods of a real node, so that Services work: kube-proxy, a way to the API server, names.

One rule: all addresses are of 198.18.0.0/15, which is set aside for tests of networks, and everything hangs on one link
between the machine and the node's own network namespace: with the link, all of it is gone.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from dnslib import QTYPE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

from hami_testkit.cluster.client import ApiClient, Informer
from hami_testkit.processes import Spec

MACHINE, NODE = "198.18.255.1", "198.18.255.2"
SERVICES, PODS, ALL = "198.18.0.0/20", "198.18.16.0/20", "198.18.0.0/16"
HERE, THERE = "hami-e2e-0", "hami-e2e-1"
"""The two ends of the link."""
DOMAIN = "cluster.local"
PACKAGES = ("containernetworking-plugins", "iptables", "iproute2")
PLUGINS = Path("/usr/lib/cni")
NEEDED = (*(str(PLUGINS / name) for name in ("ptp", "host-local", "loopback")), "iptables", "ip")

# each pod has a link of its own: between pods of a bridge, answers would pass kube-proxy's rules by
NETWORK = json.dumps({
    "cniVersion": "1.0.0", "name": "pods",
    "plugins": [{
        "type": "ptp", "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }],
})  # fmt: skip


def why_not() -> str:
    """Return why pods can have no network here, in one sentence; empty where they can."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} is not there (on Debian: apt-get install {' '.join(PACKAGES)})"
    tried = subprocess.run(["ip", "link", "show", HERE], capture_output=True, check=False)
    return f"another run has the link {HERE}" if tried.returncode == 0 else ""


@asynccontextmanager
async def a_link() -> AsyncIterator[None]:
    """Have the link for the length of a block; the machine has MACHINE, and reaches pods and Services over it."""
    await _run("ip", "link", "add", HERE, "type", "veth", "peer", "name", THERE)
    try:
        await _run("ip", "address", "add", f"{MACHINE}/30", "dev", HERE)
        await _run("ip", "link", "set", HERE, "up")
        yield
    finally:
        with suppress(OSError):  # it went with the namespace of its other end
            await _run("ip", "link", "delete", HERE)


async def connect(pid: int) -> None:
    """Give the other end of the link to the network namespace of a process, and let it forward."""
    await _run("ip", "link", "set", THERE, "netns", str(pid))
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net")
    for words in (
        ("link", "set", "lo", "up"), ("address", "add", f"{NODE}/30", "dev", THERE), ("link", "set", THERE, "up"),
        ("route", "add", "default", "via", MACHINE),
    ):  # fmt: skip
        await _run(*inside, "ip", *words)
    await _run(*inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    await _run("ip", "route", "add", ALL, "via", NODE, "dev", HERE)


def kube_proxy(binaries: Path, folder: Path, kubeconfig: Path, node: str, enter: list[str]) -> Spec:
    """Return the kube-proxy of the node, which changes nothing but the rules of its network namespace."""
    as_it_is = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    config: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig)}, "hostnameOverride": node, "bindAddress": NODE,
        "healthzBindAddress": f"{NODE}:10256", "metricsBindAddress": f"{NODE}:10249", "conntrack": as_it_is,
        "nodePortAddresses": [f"{NODE}/32"],
    }  # fmt: skip
    (folder / "kube-proxy.yaml").write_text(yaml.safe_dump(config))
    command = [*enter, str(binaries / "kube-proxy"), f"--config={folder / 'kube-proxy.yaml'}"]
    return Spec(name="kube-proxy", command=command, ready_url=f"http://{NODE}:10256/healthz")


@asynccontextmanager
async def names(api: ApiClient) -> AsyncIterator[None]:
    """Answer ``<service>.<namespace>.svc.cluster.local`` for the length of a block, as the cluster's DNS would."""
    found: dict[str, str] = {}

    def told(old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        for service, is_there in ((old, False), (new, True)):
            if service is not None:
                meta, address = service["metadata"], service["spec"].get("clusterIP", "None")
                name = f"{meta['name']}.{meta['namespace']}.svc.{DOMAIN}."
                if is_there and address != "None":
                    found[name] = address
                else:
                    found.pop(name, None)

    server = DNSServer(_Names(found), address=MACHINE, port=53, logger=DNSLogger("error"))
    server.start_thread()
    following = asyncio.create_task(Informer(api, "/api/v1/services", told).run())
    try:
        yield
    finally:
        following.cancel()
        server.stop()
        server.server.server_close()


class _Names(BaseResolver):  # type: ignore[misc]
    def __init__(self, found: dict[str, str]) -> None:
        self._found = found

    def resolve(self, request: DNSRecord, _handler: DNSHandler) -> DNSRecord:
        """Answer from what is known; a name that is not known does not exist."""
        reply, name = request.reply(), str(request.q.qname)
        if (address := self._found.get(name)) is None:
            reply.header.rcode = 3
        elif QTYPE[request.q.qtype] == "A":
            reply.add_answer(RR(name, QTYPE.A, ttl=1, rdata=A(address)))
        return reply


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(command)}: {said.decode(errors='replace').strip()}")
