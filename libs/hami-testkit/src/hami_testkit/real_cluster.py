"""A real control plane from its binaries: etcd, kube-apiserver and kube-scheduler, each for the length of a block.

One rule: it takes free ports of the loopback, writes only below the folder it is given, and leaves no process behind.
No kubelet runs, and no controller manager but where pods have a network: pods stay as their tests put them, and
namespaces never finish ending.
"""

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from hami_testkit import pod_network
from hami_testkit.processes import Processes, ProcessFailedError, Spec, free_port, processes

Restart = Callable[[], Awaitable[None]]
START_DEADLINE = 120.0
"""Seconds that each process may take on a busy machine; on an idle one all are up in ten."""
LOOPBACK = "127.0.0.1"
UNLIMITED = 1000
"""Requests a second that kube-scheduler may send: its own limit of 50 would be what a burst measures."""
AUDIT_LOG = "audit.log"
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""


class ControlPlane:
    """A running etcd and kube-apiserver; ``kubeconfig`` is an administrator's."""

    def __init__(self, kubeconfig: Path, running: Processes) -> None:
        self.kubeconfig = kubeconfig
        self._running = running

    async def restart_apiserver(self) -> None:
        """Let kube-apiserver crash, and start it again at the same address; etcd runs on."""
        await self._running.kill("kube-apiserver")
        await (await self._running.start_again("kube-apiserver")).wait_ready(START_DEADLINE)


@asynccontextmanager
async def control_plane(binaries: Path, folder: Path, *, audits: bool = False) -> AsyncIterator[Path]:
    """Run etcd and kube-apiserver until the block is left, which gets the kubeconfig of an administrator.

    ``audits``: every request stands in ``AUDIT_LOG`` of the folder, with who asked and what was answered.
    """
    async with restartable_control_plane(binaries, folder, audits=audits) as plane:
        yield plane.kubeconfig


@asynccontextmanager
async def control_plane_of_pods(binaries: Path, folder: Path) -> AsyncIterator[Path]:
    """Run both where pods reach them over the link, with controllers, and a scheduler for pods that name none."""
    async with (
        restartable_control_plane(binaries, folder, address=pod_network.MACHINE) as plane,
        processes(folder) as running,
        kube_scheduler(binaries / "kube-scheduler", folder, plane.kubeconfig, name="default-scheduler"),
    ):
        await _start(running, _controllers(binaries, folder, plane.kubeconfig))
        yield plane.kubeconfig


@asynccontextmanager
async def restartable_control_plane(
    binaries: Path, folder: Path, *, address: str = LOOPBACK, audits: bool = False
) -> AsyncIterator[ControlPlane]:
    """Run the first two, for who wants kube-apiserver to crash; at another address it serves pods as well."""
    for name in ("etcd", "kube-apiserver"):
        if not (binaries / name).is_file():
            raise ProcessFailedError(f"{binaries} holds no {name}; CONTRIBUTING.md says how to build it")
    token, kubeconfig = secrets.token_hex(), folder / "kubeconfig"
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    await _write_key(folder / "service-accounts.key")
    async with processes(folder) as running:
        client, url = f"http://127.0.0.1:{free_port()}", f"https://{address}:{free_port()}"
        await _start(running, _etcd(binaries, folder, client))
        await _start(
            running, _apiserver(binaries, folder, url=url, etcd=client, more=_auditing(folder) if audits else ())
        )
        kubeconfig.write_text(_kubeconfig(url, token))
        yield ControlPlane(kubeconfig, running)


@asynccontextmanager
async def kube_scheduler(
    binary: Path,
    folder: Path,
    kubeconfig: Path,
    extenders: Sequence[Mapping[str, Any]] = (),
    *,
    name: str = "hami-scheduler",
    more: Mapping[str, Any] | None = None,
) -> AsyncIterator[Restart]:
    """Run a kube-scheduler, with these entries as extenders and ``more`` configuration, until the block is left.

    The block gets what lets it crash and start again.
    """
    config = {
        "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig), "qps": UNLIMITED, "burst": UNLIMITED},
        "leaderElection": {"leaderElect": False},
        "profiles": [{"schedulerName": name}], "extenders": [dict(entry) for entry in extenders],
        **(more or {}),
    }  # fmt: skip
    path = folder / "scheduler.yaml"
    path.write_text(yaml.safe_dump(config))
    async with processes(folder) as running:
        await _start(running, secured(binary, f"--config={path}"))

        async def restart() -> None:
            await running.kill("kube-scheduler")
            await (await running.start_again("kube-scheduler")).wait_ready(START_DEADLINE)

        yield restart


def secured(binary: Path, *arguments: str) -> Spec:
    """Return a part of Kubernetes that serves HTTPS on a free port of the loopback; it has its binary's name."""
    port = free_port()
    command = [str(binary), *arguments, f"--secure-port={port}", f"--bind-address={LOOPBACK}"]
    return Spec(name=binary.name, command=command, ready_url=f"https://{LOOPBACK}:{port}/healthz")


async def _start(running: Processes, spec: Spec) -> None:
    await (await running.start(spec)).wait_ready(START_DEADLINE)


async def _write_key(path: Path) -> None:
    command, quiet = ["openssl", "genrsa", "-out", str(path), "2048"], asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    if await process.wait():
        raise ProcessFailedError("openssl cannot make the key that kube-apiserver signs tokens with")


def _etcd(binaries: Path, folder: Path, client: str) -> Spec:
    peer = f"http://127.0.0.1:{free_port()}"
    command = [
        str(binaries / "etcd"), f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
    ]  # fmt: skip
    return Spec(name="etcd", command=command, ready_url=f"{client}/health", ground=True)


def _auditing(folder: Path) -> list[str]:
    policy = folder / "audit-policy.yaml"
    policy.write_text(AUDIT_POLICY)
    return [f"--audit-policy-file={policy}", f"--audit-log-path={folder / AUDIT_LOG}"]


def _apiserver(binaries: Path, folder: Path, *, url: str, etcd: str, more: Sequence[str]) -> Spec:
    key = folder / "service-accounts.key"
    address, port = url.removeprefix("https://").split(":")
    # they demand what only a controller manager or a kubelet brings
    without, services, grace = "ServiceAccount,TaintNodesByCondition", "10.0.0.0/24", 20.0
    if address != LOOPBACK:  # and it waits in vain for connections of pods that are gone with their network
        without, services, grace = "TaintNodesByCondition", pod_network.SERVICES, 3.0
    command = [
        str(binaries / "kube-apiserver"), f"--etcd-servers={etcd}", f"--cert-dir={folder}",
        f"--bind-address={address}", f"--secure-port={port}", f"--service-cluster-ip-range={services}",
        f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC",
        f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--disable-admission-plugins={without}", *more,
    ]  # fmt: skip
    return Spec(name="kube-apiserver", command=command, ready_url=f"{url}/readyz", grace=grace)


def _controllers(binaries: Path, folder: Path, kubeconfig: Path) -> Spec:
    return secured(
        binaries / "kube-controller-manager", f"--kubeconfig={kubeconfig}", "--leader-elect=false",
        f"--service-account-private-key-file={folder / 'service-accounts.key'}",
        # kube-apiserver's certificate is made by an authority of its own, which stands in the same file
        f"--root-ca-file={folder / 'apiserver.crt'}",
    )  # fmt: skip


def _kubeconfig(url: str, token: str) -> str:
    name = "real"
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
    }  # fmt: skip
    return yaml.safe_dump(config, sort_keys=False)


def main() -> None:
    """Run a control plane until SIGTERM or Ctrl-C, and print where its kubeconfig is."""
    parser = argparse.ArgumentParser(prog="python -m hami_testkit.real_cluster", description=main.__doc__)
    parser.add_argument("binaries", type=Path, help="the folder of etcd and kube-apiserver")
    options = parser.parse_args()
    try:
        asyncio.run(_run(options.binaries))
    except ProcessFailedError as error:
        sys.exit(f"no control plane: {error}")


async def _run(binaries: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="real-cluster-", ignore_cleanup_errors=True) as folder:
        async with control_plane(binaries, Path(folder)) as kubeconfig:
            print(kubeconfig, flush=True)
            await stop.wait()


if __name__ == "__main__":
    main()
