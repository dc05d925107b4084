"""The services as processes with what the chart renders for them: environment, files, certificate, users of NATS.

One rule: only what a machine without a cluster lacks is put in its place (addresses, folders, cards from a file);
everything else is the chart's own.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from hami_testkit.processes import BIN, Spec, free_port
from msgspec import Struct

from tests.chart.rendering import Rendered, render

NODE = "gpu-a"


class Ports(Struct, frozen=True):
    """Where everything listens on this machine."""

    nats: int
    webhook: int
    extender: int
    health: Mapping[str, int]

    @classmethod
    def free(cls, names: Iterable[str]) -> "Ports":
        return cls(free_port(), free_port(), free_port(), {name: free_port() for name in names})


class Installation:
    """One rendering, laid out in a folder so that its processes can be started."""

    def __init__(self, folder: Path, ports: Ports, found: Rendered) -> None:
        self.folder = folder
        self.ports = ports
        self.found = found
        self._write("device-config.yaml", found.text("hami-scheduler-device", "device-config.yaml"))
        self._write("config.json", found.text("hami-device-plugin", "config.json"))
        self._write("tls.crt", found.secret("hami-webhook-tls", "tls.crt"))
        self._write("tls.key", found.secret("hami-webhook-tls", "tls.key"))

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def nats(self) -> Spec:
        """Return the bundled server: its own configuration, with the ports and the folder of this machine."""
        text = self.found.secret("hami-nats", "nats.conf")
        text = text.replace("port: 4222", f'listen: "127.0.0.1:{self.ports.nats}"')
        text = text.replace("http_port: 8222", f'http: "127.0.0.1:{self.ports.health["nats"]}"')
        path = self._write("nats.conf", text.replace("/data/jetstream", str(self.folder / "jetstream")))
        return Spec(
            name="nats",
            command=[str(BIN / "nats-server"), "-c", str(path)],
            env={"POD_NAME": "hami-nats-0"},
            ready_url=f"http://127.0.0.1:{self.ports.health['nats']}/healthz?js-server-only=true",
            ground=True,
        )

    def url(self, user: str) -> str:
        """Return where a user of NATS connects."""
        return f"nats://{user}:{self.found.secret('hami-nats', user)}@127.0.0.1:{self.ports.nats}"

    def scheduler_config(self, **more: Any) -> Path:
        """Write kube-scheduler's configuration, with the extender where it listens here."""
        text = self.found.text("hami-scheduler", "config.yaml")
        config = yaml.safe_load(text.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{self.ports.extender}"))
        return self._write("scheduler.yaml", yaml.safe_dump(config | more))

    def service(self, name: str, workload: str, container: str, *, node: str = NODE, **env: Any) -> Spec:
        """Return a service with its environment, less what only a pod has."""
        health = self.ports.health.get(name) or free_port()
        rendered = self.found.environment(workload, container, fields={"spec.nodeName": node})
        rendered["HAMI_NATS_URL"] = re.sub("@.*", f"@127.0.0.1:{self.ports.nats}", rendered["HAMI_NATS_URL"])
        places = {"HAMI_DEVICE_CONFIG": self.folder / "device-config.yaml", "HAMI_HEALTH_LISTEN": f"127.0.0.1:{health}"}
        command = [str(BIN / self.found.container(workload, container)["command"][0])]
        given = {key: str(value) for key, value in {**rendered, **places, **env}.items()}
        return Spec(name=name, command=command, env=given, ready_url=f"http://127.0.0.1:{health}/readyz")

    def webhook(self) -> Spec:
        where: dict[str, Any] = {"HAMI_TLS_CERT": self.folder / "tls.crt", "HAMI_TLS_KEY": self.folder / "tls.key"}
        listen = f"127.0.0.1:{self.ports.webhook}"
        return self.service("webhook", "hami-webhook", "webhook", HAMI_LISTEN=listen, **where)

    def extender(self) -> Spec:
        listen = f"127.0.0.1:{self.ports.extender}"
        return self.service("extender", "hami-scheduler", "vgpu-scheduler-extender", HAMI_LISTEN=listen)

    def allocator(self, name: str, kubeconfig: Path) -> Spec:
        return self.service(name, "hami-allocator", "allocator", KUBECONFIG=kubeconfig)

    def agent(self, kubeconfig: Path, kubelet: Path, *, node: str = NODE) -> Spec:
        """Return the agent of a node, which has two cards."""
        name = "agent" if node == NODE else f"agent-{node}"
        return self.service(
            name, "hami-device-plugin", "device-plugin", node=node, KUBECONFIG=kubeconfig, HAMI_KUBELET_DIR=kubelet,
            HAMI_PROBES=f"sim:{self._write(f'{node}.yaml', cards(node))}",
            HAMI_NODE_CONFIG=self.folder / "config.json", HAMI_HOOK_PATH=self.folder / "hook" / node,
            HAMI_LOCK_DIR=self.folder / "lock" / node, HAMI_LIBRARY_DIR="",
        )  # fmt: skip


def cards(node: str) -> str:
    """Return what the agent of a node takes for its cards."""
    return "\n".join(
        f"- {{vendor: NVIDIA, id: GPU-{node}-{i}, index: {i}, count: 10, devmem: 40000, devcore: 100,"
        " type: NVIDIA A40, numa: 0, mode: hami-core, health: true}"
        for i in (0, 1)
    )


NAMES = ("nats", "webhook", "extender", "allocator", "allocator-2", "agent")


def values(ports: Ports) -> str:
    """Return the ``--set`` line that lets the API server find the webhook on this machine."""
    where = "scheduler.admissionWebhook.customURL"
    return f"{where}.enabled=true,{where}.host=127.0.0.1,{where}.port={ports.webhook}"


def installation(folder: Path) -> Installation:
    """Render the chart for this machine, and lay it out."""
    ports = Ports.free(NAMES)
    return Installation(folder, ports, render(values(ports)))
