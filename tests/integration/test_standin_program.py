"""``hami-standin`` as a person runs it, and kubectl talking to it."""

import asyncio
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from hami_testkit.cluster.client import ApiClient

PROGRAM = str(Path(sys.executable).parent / "hami-standin")
NODES = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: node-a}, status: {capacity: {cpu: 4, memory: 8Gi, pods: 110}}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-b}, status: {capacity: {cpu: 4, memory: 8Gi, pods: 110}}}
"""
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p0"},
    "spec": {"containers": [{"name": "main", "image": "busybox", "resources": {"limits": {"cpu": "1"}}}]},
}


@asynccontextmanager
async def standin(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run the program until the block is left, and hand over its process and URL."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(PROGRAM, *arguments, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def kubectl(kubeconfig: Path, *arguments: str, text: str = "") -> str:
    pipe, both = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    command = ["kubectl", f"--kubeconfig={kubeconfig}", f"--cache-dir={kubeconfig.parent}", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=both)
    said = (await process.communicate(text.encode()))[0].decode()
    assert 0 == process.returncode, said
    return said


async def test_the_program_says_where_it_listens_and_ends_on_sigterm(tmp_path: Path) -> None:
    """It prints its URL once ready, writes the kubeconfig, and SIGTERM ends it with 0."""
    kubeconfig = tmp_path / "kubeconfig"

    async with standin(f"--kubeconfig-out={kubeconfig}", "--scheduler") as (process, url):
        process.send_signal(signal.SIGTERM)
        ended = await process.wait()

    assert (0, True) == (ended, url.startswith("http://127.0.0.1:"))
    assert url == yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]


@pytest.mark.parametrize(
    ("option", "text", "sentence"),
    [
        ("--listen=here", "", "'here' is no address; write host:port with a port up to 65535, such as 0.0.0.0:8443"),
        ("--listen=192.0.2.1:1", "", "on address ('192.0.2.1', 1): cannot assign requested address"),
        ("--kubeconfig-out={file}/x", "", "{file}/x: Not a directory"),
        ("--nodes={file}x", "", "{file}x: No such file or directory"),
        ("--nodes={file}", yaml.safe_dump(POD), "{file} holds a Pod; write only Node objects there"),
        ("--nodes={file}", "- a", "{file} holds a list; write only Node objects there"),
        ("--nodes={file}", "a: [1", "{file} is no YAML (line 1)"),
        ("--nodes={file}", "{kind: Node, metadata: {name: a}, status: {capacity: {cpu: lots}}}", "no quantity"),
        ("--scheduler-config={file}", "- a", "{file} is no KubeSchedulerConfiguration"),
        ("--webhook=localhost", "", "'localhost' is no URL; write it as http://127.0.0.1:8080/path"),
        ("--cluster", "", "unrecognized arguments: --cluster"),
    ],
)
async def test_what_cannot_be_meant_is_refused_in_one_sentence(
    tmp_path: Path, option: str, text: str, sentence: str
) -> None:
    """It names what was given and what is wrong with it, on one line."""
    file = tmp_path / "file"
    file.write_text(text)

    async with standin(option.format(file=file)) as (process, _):
        said = (await process.communicate())[1].decode()

    assert (True, True) == (process.returncode in (1, 2), sentence.format(file=file) in said), said
    assert 1 == len(said.splitlines())


async def test_who_watched_an_earlier_run_must_list_again() -> None:
    """A restarted stand-in is empty: its revisions go on, and a watch from before gets 410."""
    async with standin() as (first, url), ApiClient.connect(url) as api:
        seen = (await api.get("/api/v1/pods"))["metadata"]["resourceVersion"]
        first.terminate()
        await first.wait()

        async with standin(f"--listen={url.removeprefix('http://')}"):
            again = [event["object"] async for event in api.watch("/api/v1/pods", resourceVersion=seen)]

    assert [(410, "Expired")] == [(status["code"], status["reason"]) for status in again]


async def test_a_standin_with_a_journal_survives_a_crash(tmp_path: Path) -> None:
    """As etcd would: the same objects, uids and revisions; what was deleted stays away; watches from before get 410."""
    options, nodes = (f"--journal={tmp_path / 'journal'}", f"--nodes={tmp_path / 'nodes'}"), tmp_path / "nodes"
    nodes.write_text(NODES)
    async with standin(*options) as (first, url), ApiClient.connect(url) as api:
        watched = (await api.get("/api/v1/pods"))["metadata"]["resourceVersion"]
        kept = await api.create("/api/v1/namespaces/default/pods", POD)
        again = await api.create("/api/v1/namespaces/default/pods", {**POD, "metadata": {"name": "p1"}})
        await api.delete("/api/v1/namespaces/default/pods/p1")
        node = await api.patch("/api/v1/nodes/node-a", {"metadata": {"annotations": {"a/b": "c"}}})
        first.kill()
        await first.wait()

        async with standin(*options, f"--listen={url.removeprefix('http://')}"):
            pods = (await api.get("/api/v1/pods"))["items"]
            nodes_now = (await api.get("/api/v1/nodes"))["items"]
            events = [event["object"] async for event in api.watch("/api/v1/pods", resourceVersion=watched)]
            later = await api.create("/api/v1/namespaces/default/pods", {**POD, "metadata": {"name": "p1"}})

    assert [kept["metadata"]] == [pod["metadata"] for pod in pods]
    assert [node["metadata"], "node-b"] == [nodes_now[0]["metadata"], nodes_now[1]["metadata"]["name"]]
    assert [410] == [status["code"] for status in events]
    assert again["metadata"]["uid"] != later["metadata"]["uid"]
    assert int(node["metadata"]["resourceVersion"]) < int(later["metadata"]["resourceVersion"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
async def test_kubectl_finds_its_way(tmp_path: Path) -> None:
    """create, get, describe, annotate, wait and delete work as on any cluster."""
    kubeconfig, nodes = tmp_path / "kubeconfig", tmp_path / "nodes.yaml"
    nodes.write_text(NODES)

    async with standin(f"--kubeconfig-out={kubeconfig}", f"--nodes={nodes}", "--scheduler"):
        assert "pod/p0 created" in await kubectl(kubeconfig, "create", "-f", "-", text=yaml.dump(POD))
        await kubectl(kubeconfig, "wait", "--for=condition=PodScheduled", "pod/p0", "--timeout=10s")
        listed = await kubectl(kubeconfig, "get", "pods,nodes")
        described = await kubectl(kubeconfig, "describe", "pod", "p0")
        node = await kubectl(kubeconfig, "describe", "node", "node-b")
        assert "annotated" in await kubectl(kubeconfig, "annotate", "pod", "p0", "a/b=c")
        assert "deleted" in await kubectl(kubeconfig, "delete", "pod", "p0", "--grace-period=0", "--force")

    assert all(word in listed for word in ("STATUS", "pod/p0", "Pending", "node/node-a", "node/node-b", "Unknown"))
    assert "Successfully assigned default/p0 to node-" in described
    assert "memory:  8Gi" in node
