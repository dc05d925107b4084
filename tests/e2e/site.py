"""A cluster in which the pages' commands are typed: Kubernetes' own parts, helm, kubectl, and nodes that are simulated.

One rule: what Helm has put into the cluster decides what runs: the chart's pods run as far as a stand-in kubelet runs
anything, and our services beside them as processes, with what Helm rendered and with their own accounts' tokens.
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import Kubelet
from hami_testkit.cluster.proxy import ApiProxy, api_proxy
from hami_testkit.processes import BIN, Spec, processes
from hami_testkit.real_cluster import control_plane, secured
from msgspec import Struct, structs

from tests.chart.in_cluster import Cluster, start
from tests.chart.rendering import NAMESPACE, Rendered, read, values_of
from tests.chart.running import Installation, Ports, values

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
READY = 120.0
CONTROLLERS = (
    "deployment-controller", "replicaset-controller", "daemonset-controller", "statefulset-controller",
    "garbage-collector-controller", "persistentvolumeclaim-protection-controller",
)  # fmt: skip
"""Those that the chart's objects need to come, to change and to go."""


class Site:
    """The cluster, its nodes, and a folder to type commands in."""

    def __init__(self, folder: Path, binaries: Path, kubeconfig: Path, api: ApiClient) -> None:
        self.folder = folder
        self.binaries = binaries
        self.kubeconfig = kubeconfig
        self.api = api
        self.cluster = Cluster(kubeconfig, api)
        self.kubelets: dict[str, Kubelet] = {}
        self.ways: dict[str, ApiProxy] = {}
        """Each kubelet's way to the API server, which can be made bad."""
        self.place = folder / "place"
        self.place.mkdir()
        (self.place / "deploy").symlink_to(ROOT / "deploy")
        self._env = {
            "PATH": f"{binaries}:{BIN}:{os.environ['PATH']}", "HOME": str(folder), "KUBECONFIG": str(kubeconfig),
        }  # fmt: skip

    # Typing

    async def type(self, text: str) -> str:
        """Run a command to its end; return what it printed, after it has ended well."""
        code, output = await self.try_to(text)
        if code:
            raise AssertionError(f"$ {text}\nended with {code}:\n{output}")
        return output

    async def try_to(self, text: str) -> tuple[int, str]:
        """Run a command to its end; return how it ended, and what it printed. One that does not end is killed."""
        out, err = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", text, cwd=self.place, env=self._env, stdout=out, stderr=err, start_new_session=True
        )
        try:
            async with asyncio.timeout(READY):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return process.returncode or 0, output.decode()

    async def until_well(self, text: str) -> str:
        """Run a command until it ends well: parts that started a moment ago have to find each other."""
        code, said = 1, ""
        try:
            async with asyncio.timeout(READY):
                while code:
                    code, said = await self.try_to(text)
        except TimeoutError as e:
            raise AssertionError(f"$ {text}\n{said}") from e
        return said

    def remember(self, name: str, value: str) -> None:
        """Set a variable for the commands to come, as ``export`` does."""
        self._env[name] = value

    # What Helm has put there

    async def rendered(self) -> Rendered:
        """Return the objects of the release."""
        return read({"manifest.yaml": await self.type(f"helm -n {NAMESPACE} get manifest hami")})

    @asynccontextmanager
    async def services(self, ports: Ports, nodes: Sequence["Served"]) -> AsyncIterator[Installation]:
        """Run the services with what Helm rendered for them, and an agent for each node, for the length of a block."""
        folder = Path(tempfile.mkdtemp(prefix="s", dir=self.folder))
        here = Installation(folder, ports, await self.rendered())
        async with processes(folder) as started:
            await self.cluster.start_services(started, here, self.binaries)
            await start(started, *[await self._agent(here, node) for node in nodes])
            yield here

    async def _agent(self, here: Installation, node: "Served") -> Spec:
        kubeconfig = await self.cluster.kubeconfig_of("device-plugin", here.folder)
        spec = here.agent(kubeconfig, self.kubelets[node.name].root, node=node.name)
        cards = here.folder / f"cards-of-{node.name}.yaml"
        cards.write_text(yaml.safe_dump(list(node.cards)))
        return structs.replace(spec, name=f"agent-{node.name}", env={**spec.env, "HAMI_PROBES": f"sim:{cards}"})


class Served(Struct, frozen=True):
    """A node that our agent serves, and its simulated cards."""

    name: str
    cards: tuple[Mapping[str, object], ...]


def values_here(ports: Ports) -> Json:
    """Return the values that this machine needs: where the API server finds the webhook."""
    return values_of(values(ports))


@asynccontextmanager
async def a_site(binaries: Path, nodes: Sequence[str]) -> AsyncIterator[Site]:
    """Run the cluster with these nodes until the block is left."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            kubeconfig = await stack.enter_async_context(control_plane(binaries, folder))
            api = await stack.enter_async_context(connect(kubeconfig))
            started = await stack.enter_async_context(processes(folder))
            where = (f"--kubeconfig={kubeconfig}", "--leader-elect=false")
            chosen = f"--controllers={','.join(CONTROLLERS)}"
            await start(
                started,
                secured(binaries / "kube-scheduler", *where),
                secured(binaries / "kube-controller-manager", *where, chosen),
            )
            site = Site(folder, binaries, kubeconfig, api)
            for node in nodes:
                way = await stack.enter_async_context(api_proxy(kubeconfig))
                told = await stack.enter_async_context(ApiClient.connect(way.url))
                kubelet = Kubelet(told, node, folder / "k" / node)
                site.kubelets[node] = await stack.enter_async_context(kubelet.running())
                site.ways[node] = way
            yield site
