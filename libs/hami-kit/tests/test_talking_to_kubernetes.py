"""Calls to the API server: what is sent, what comes back, and which error a refusal is."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hami_kit import web
from hami_kit.errors import (
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeGone,
    KubeInvalid,
    KubeNotFound,
    KubeUnavailable,
    SettingsError,
)
from hami_kit.kube import Kube
from hami_kit.kube.client import PODS
from hami_kit.setting_values import Address
from hami_kit.tls import TlsFiles
from hami_model.objects import PodRef
from hami_testkit.cluster import Standin
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.resources import EVENTS, NODES
from hami_testkit.cluster.resources import PODS as POD_RESOURCE
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .certificates import a_certificate


async def a_pod(cluster: Standin, name: str = "p0") -> PodRef:
    pod = {"metadata": {"name": name}, "spec": {"containers": [{"name": "main"}]}}
    stored, _ = await cluster.registry.create(POD_RESOURCE, pod, namespace="default")
    return PodRef("default", name, stored.object["metadata"]["uid"])


def stored(cluster: Standin, pod: PodRef) -> dict[str, Any]:
    found: dict[str, Any] = cluster.registry.get(POD_RESOURCE, (pod.namespace, pod.name)).object
    return found


async def test_a_binding_carries_its_annotations_and_its_fence(cluster: Standin, kube: Kube) -> None:
    """One write binds and annotates; with an old resourceVersion it is a conflict and changes nothing."""
    ref = await a_pod(cluster)
    pod = await kube.get_pod("default", "p0")
    with pytest.raises(KubeConflict, match="Precondition failed"):
        await kube.bind_pod(ref, "n1", resource_version="1", annotations={"a": "x"})
    version = pod.metadata.resource_version
    await kube.bind_pod(ref, "n1", resource_version=version, annotations={"hami.io/vgpu-node": "n1"})

    bound = await kube.get_pod("default", "p0")
    assert ("n1", "n1") == (bound.spec.node_name, bound.annotations["hami.io/vgpu-node"])


@pytest.mark.parametrize(
    "name", ["../../../nodes/n1", "p0?x=", "p0#b", "p0/binding", "%2e%2e", "..", "", "x" * 300, "p0\0"]
)
async def test_a_name_leads_nowhere_else(cluster: Standin, kube: Kube, name: str) -> None:
    """Names come over the bus; one that no object can have is not looked for in another's place."""
    await cluster.registry.create(NODES, {"metadata": {"name": "n1"}}, namespace="")
    await a_pod(cluster)
    for read in (kube.get_pod("default", name), kube.get_pod(name, "p0"), kube.get_node(name)):
        with pytest.raises(KubeNotFound, match="not found: no object can be named so"):
            await read


async def test_a_patch_means_this_very_pod(cluster: Standin, kube: Kube) -> None:
    """Values are set, None removes; a namesake with another uid is a conflict."""
    ref = await a_pod(cluster)
    await kube.patch_pod(ref, annotations={"a": "1", "b": "2"}, labels={"hami.io/vgpu-node": "n1"})
    patched = await kube.patch_pod(ref, annotations={"a": None, "b": "3"})

    assert {"b": "3"} == patched.annotations
    assert {"hami.io/vgpu-node": "n1"} == patched.metadata.labels
    with pytest.raises(KubeError) as caught:
        await kube.patch_pod(PodRef("default", "p0", "another"), annotations={"b": "4"})
    assert caught.value.status in (409, 422)
    assert "3" == stored(cluster, ref)["metadata"]["annotations"]["b"]


async def test_a_node_patch_with_an_old_version_is_a_conflict(cluster: Standin, kube: Kube) -> None:
    """The node lock is taken by whoever saw the node last."""
    await cluster.registry.create(NODES, {"metadata": {"name": "n1"}})
    seen = (await kube.get_node("n1")).metadata.resource_version
    locked = await kube.patch_node("n1", annotations={"hami.io/mutex.lock": "me"}, resource_version=seen)

    assert "me" == locked.annotations["hami.io/mutex.lock"]
    with pytest.raises(KubeConflict):
        await kube.patch_node("n1", annotations={"hami.io/mutex.lock": "you"}, resource_version=seen)


async def test_lists_come_whole_whatever_their_pages(cluster: Standin, kube: Kube) -> None:
    """1,001 pods are three requests and one list, of one resourceVersion."""
    for number in range(1001):
        await a_pod(cluster, f"p{number}")
    listed = await kube.list_pods()

    assert 1001 == len({pod.metadata.name for pod in listed.items})
    assert str(cluster.registry.store.revision) == listed.resource_version
    assert [] == (await kube.list_pods(field_selector="spec.nodeName=n1")).items


async def test_a_page_token_too_old_is_gone(cluster: Standin, kube: Kube) -> None:
    """A list that took too long says so, and the caller begins anew."""
    for number in range(501):
        await a_pod(cluster, f"p{number}")
    pages = kube.pages(PODS, {})
    assert 500 == len((await anext(pages)).items)
    cluster.faults.set(Fault(kind="gone"))
    with pytest.raises(KubeGone):
        await anext(pages)


async def test_an_event_tells_of_a_pod(cluster: Standin, kube: Kube) -> None:
    """``kubectl describe pod`` shows it: it names the pod by uid."""
    ref = await a_pod(cluster)
    await kube.create_event(ref, type="Warning", reason="FilteringFailed", message="no", component="hami-scheduler")

    (event,) = [e.object for e in cluster.registry.store.of(EVENTS).objects.values()]
    assert ref.uid == event["involvedObject"]["uid"]
    assert ("Warning", "FilteringFailed", "no") == (event["type"], event["reason"], event["message"])


async def test_there_is_no_such_pod(kube: Kube) -> None:
    """404 is its own error, with the server's words."""
    with pytest.raises(KubeNotFound, match='pods "nobody" not found') as caught:
        await kube.get_pod("default", "nobody")

    assert (404, "NotFound", False) == (caught.value.status, caught.value.reason, caught.value.retriable)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, KubeForbidden),
        (403, KubeForbidden),
        (409, KubeConflict),
        (410, KubeGone),
        (422, KubeInvalid),
        (429, KubeUnavailable),
        (500, KubeUnavailable),
        (503, KubeUnavailable),
    ],
)
async def test_each_refusal_has_its_error(cluster: Standin, kube: Kube, code: int, kind: type[KubeError]) -> None:
    """The type says what to do; only what may pass by itself is retriable."""
    cluster.faults.set(Fault(kind="refuse", code=code))
    with pytest.raises(kind) as caught:
        await kube.get_pod("default", "p0")

    assert (code, kind is KubeUnavailable) == (caught.value.status, caught.value.retriable)


async def test_a_lost_answer_is_no_refusal(cluster: Standin, kube: Kube) -> None:
    """The connection breaks after the write: the error says that the outcome is unknown, by its type."""
    ref = await a_pod(cluster)
    cluster.faults.set(Fault(kind="drop", resource="pods/binding"))
    with pytest.raises(KubeUnavailable) as caught:
        await kube.bind_pod(ref, "n1", resource_version="", annotations={})

    assert 0 == caught.value.status
    assert "n1" == stored(cluster, ref)["spec"]["nodeName"]


async def test_a_call_ends_at_its_deadline(cluster: Standin, kube: Kube) -> None:
    """An API server that hangs is an error with a sentence."""
    cluster.faults.set(Fault(kind="pause"))
    with pytest.raises(KubeUnavailable, match="did not answer in time"):
        await kube.transport.call("GET", PODS, timeout=0.1)
    cluster.faults.clear()


async def test_nobody_there_is_an_error_with_the_address(tmp_path: Path) -> None:
    """A kubeconfig that leads to a closed port names where it led."""
    config = a_kubeconfig(tmp_path / "config", "http://127.0.0.1:9")
    async with Kube.connect(str(config)) as kube:
        with pytest.raises(KubeUnavailable, match=r"the API server at http://127\.0\.0\.1:9 cannot be reached"):
            await kube.get_node("n1")


# KUBECONFIG


def a_kubeconfig(path: Path, server: str, *, cluster: Any = None, user: Any = None) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


@asynccontextmanager
async def an_api_server(tmp_path: Path, *, client_ca: Path | None = None) -> AsyncIterator[tuple[str, Path, list[str]]]:
    """Run an HTTPS server that answers any node, and writes down how the caller showed who it is."""
    shown: list[str] = []

    async def node(request: Request) -> Response:
        shown.append(request.headers.get("authorization", ""))
        name = request.path_params["name"]
        return Response(msgspec.json.encode({"metadata": {"name": name}}), media_type="application/json")

    chain = a_certificate(tmp_path, "server")
    tls = TlsFiles(cert=chain.cert, key=chain.key, client_ca=client_ca)
    app = Starlette(routes=[Route("/api/v1/nodes/{name}", node)])
    async with web.serve(app, Address("127.0.0.1", 0), tls=tls) as address:
        yield f"https://{address}", chain.ca, shown


async def test_a_token_and_a_ca(tmp_path: Path) -> None:
    """The kubeconfig's CA is believed and its token shown; without the CA nothing is sent."""
    async with an_api_server(tmp_path) as (url, ca, shown):
        trusting = {"certificate-authority": str(ca)}
        config = a_kubeconfig(tmp_path / "config", url, cluster=trusting, user={"token": "secret"})
        async with Kube.connect(str(config)) as kube:
            assert "n1" == (await kube.get_node("n1")).metadata.name
        async with Kube.connect(str(a_kubeconfig(tmp_path / "doubting", url))) as kube:
            with pytest.raises(KubeUnavailable, match="cannot be reached"):
                await kube.get_node("n1")

    assert ["Bearer secret"] == shown


async def test_a_client_certificate(tmp_path: Path) -> None:
    """A server that asks for certificates takes the kubeconfig's."""
    mine = a_certificate(tmp_path, "admin")
    async with an_api_server(tmp_path, client_ca=mine.ca) as (url, ca, _shown):
        user = {"client-certificate": str(mine.cert), "client-key": str(mine.key)}
        config = a_kubeconfig(tmp_path / "config", url, cluster={"certificate-authority": str(ca)}, user=user)
        async with Kube.connect(str(config)) as kube:
            assert "n1" == (await kube.get_node("n1")).metadata.name


async def test_a_credential_plugin_is_asked(tmp_path: Path) -> None:
    """A kubeconfig of a cloud names a program that prints a token."""
    status = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "cloud"}}
    program = tmp_path / "plugin.py"
    program.write_text(f"print({msgspec.json.encode(status).decode()!r})")
    run = {"apiVersion": status["apiVersion"], "command": sys.executable, "args": [str(program)]}
    async with an_api_server(tmp_path) as (url, ca, shown):
        trusting = {"certificate-authority": str(ca)}
        config = a_kubeconfig(tmp_path / "config", url, cluster=trusting, user={"exec": run})
        async with Kube.connect(str(config)) as kube:
            await kube.get_node("n1")

    assert ["Bearer cloud"] == shown


async def test_several_files_are_one_configuration(cluster: Standin, tmp_path: Path) -> None:
    """KUBECONFIG may name files that are merged, and ones that are not there, as kubectl allows."""
    here = cluster.kubeconfig(tmp_path / "here")
    other = a_kubeconfig(tmp_path / "other", "http://127.0.0.1:9")
    names = os.pathsep.join([str(tmp_path / "nowhere"), str(other), str(here)])
    async with Kube.connect(names) as kube:
        with pytest.raises(KubeNotFound):
            await kube.get_node("n1")


async def test_without_kubeconfig_the_users_own_counts(
    cluster: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """~/.kube/config, as kubectl reads it."""
    (tmp_path / ".kube").mkdir()
    cluster.kubeconfig(tmp_path / ".kube" / "config")
    monkeypatch.setenv("HOME", str(tmp_path))
    async with Kube.connect(None) as kube:
        with pytest.raises(KubeNotFound):
            await kube.get_node("n1")


def _absent(path: Path) -> str:
    return str(path / "absent")


def _no_yaml(path: Path) -> str:
    (path / "config").write_text("{")
    return str(path / "config")


def _no_context(path: Path) -> str:
    (path / "config").write_text("apiVersion: v1\nkind: Config\n")
    return str(path / "config")


def _no_certificate(path: Path) -> str:
    (path / "ca").write_text("no certificate")
    return str(a_kubeconfig(path / "config", "https://h", cluster={"certificate-authority": str(path / "ca")}))


@pytest.mark.parametrize("broken", [_absent, _no_yaml, _no_context, _no_certificate])
async def test_a_kubeconfig_that_cannot_be_used_is_said(broken: Callable[[Path], str], tmp_path: Path) -> None:
    """One sentence that begins with the variable."""
    with pytest.raises(SettingsError, match=r"^KUBECONFIG: "):
        async with Kube.connect(broken(tmp_path)):
            pass


async def test_outside_of_any_cluster_the_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No KUBECONFIG, no file, no pod: the sentence says what to set."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SettingsError, match="KUBECONFIG: is not set and this is no pod"):
        async with Kube.connect(None):
            pass


async def test_no_proxy_stands_between_us_and_our_own_machine(
    cluster: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment says, as with kubectl."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with Kube.connect(str(cluster.kubeconfig(tmp_path / "kubeconfig"))) as kube:
        with pytest.raises(KubeNotFound):
            await kube.get_node("nowhere")
