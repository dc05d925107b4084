"""What people write with kubectl is written, refused and told alike on the stand-in and on a real API server."""

import json

import pytest
import yaml

from tests.e2e.kubectl import POD, Kubectl

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


async def test_a_manifest_is_applied_and_applied_again(kubectl: Kubectl) -> None:
    """Created, unchanged, configured; what the manifest no longer names is gone, what others wrote stays."""
    apply = ("apply", "-f", "-")
    (await kubectl(*apply, text=POD)).assert_shows("pod/my-slice created")
    (await kubectl(*apply, text=POD)).assert_shows("pod/my-slice unchanged")
    await kubectl("annotate", "pod", "my-slice", "hami.io/bind-phase=success")

    changed = POD.replace("ubuntu:24.04", "ubuntu:26.04").replace("labels: {app: first}", "annotations: {team: blue}")
    said = await kubectl(*apply, text=changed)

    assert ["pod/my-slice configured"] == said.lines
    pod = yaml.safe_load((await kubectl("get", "pod", "my-slice", "-o", "yaml")).text)
    assert "ubuntu:26.04" == pod["spec"]["containers"][0]["image"]
    assert None is pod["metadata"].get("labels")
    assert {"team": "blue", "hami.io/bind-phase": "success"}.items() <= pod["metadata"]["annotations"].items()


async def test_a_misspelt_field_is_refused_before_anything_is_written(kubectl: Kubectl) -> None:
    """Whether the object is new or there already."""
    wrong = 'strict decoding error: unknown field "spec.containers[0].resources.limts"'
    typo = POD.replace("limits:", "limts:")

    said = await kubectl.try_("apply", "-f", "-", text=typo)
    assert 1 == said.code
    said.assert_shows(f'Error from server (BadRequest): …: Pod in version "v1" cannot be handled as a Pod: {wrong}')

    await kubectl("apply", "-f", "-", text=POD)
    said = await kubectl.try_("apply", "-f", "-", text=typo)
    assert 1 == said.code
    said.assert_shows(f"The request is invalid: patch: Invalid value: …{wrong}")


async def test_what_may_not_change_is_refused_with_the_servers_sentence(kubectl: Kubectl) -> None:
    """A pod's devices are fixed once it is made."""
    await kubectl("apply", "-f", "-", text=POD)

    said = await kubectl.try_("apply", "-f", "-", text=POD.replace("gpumem: 3k", "gpumem: 4k"))

    assert 1 == said.code
    said.assert_shows(
        'The Pod "my-slice" is invalid:', "* …must be equal to nvidia.com/gpumem limit of 4k",
        "* spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,…",
    )  # fmt: skip


async def test_a_manifest_is_applied_by_the_server(kubectl: Kubectl) -> None:
    """Made and changed in one kind of request."""
    apply = ("apply", "--server-side", "-f", "-")
    (await kubectl(*apply, text=POD)).assert_shows("pod/my-slice serverside-applied")
    (await kubectl(*apply, text=POD.replace("first", "second"))).assert_shows("pod/my-slice serverside-applied")

    assert "second" == (await kubectl("get", "pod", "my-slice", "-o", "jsonpath={.metadata.labels.app}")).text
    said = await kubectl.try_(*apply, text=POD.replace("limits:", "limts:"))
    assert 1 == said.code
    assert ".resources.limts: field not declared in schema" in said.text


async def test_objects_are_made_from_options(kubectl: Kubectl) -> None:
    """kubectl sends these as protobuf."""
    hard = "requests.nvidia.com/gpu=2,limits.nvidia.com/gpumem=3000,pods=4"
    (await kubectl("create", "quota", "cards", f"--hard={hard}")).assert_shows("resourcequota/cards created")
    await kubectl("create", "configmap", "words", "--from-literal=string=text", "--from-literal=b=2")
    await kubectl("create", "secret", "generic", "key", "--from-literal=user=me")
    await kubectl("create", "serviceaccount", "robot")

    asked = "jsonpath={.spec.hard}"
    hard_told = json.loads((await kubectl("get", "quota", "cards", "-o", asked)).text)
    assert {"requests.nvidia.com/gpu": "2", "limits.nvidia.com/gpumem": "3k", "pods": "4"} == hard_told
    (await kubectl("get", "configmap", "words")).assert_shows("NAME DATA AGE", "words 2 …")
    (await kubectl("get", "secret", "key")).assert_shows("NAME TYPE DATA AGE", "key Opaque 1 …")
    assert "bWU=" == (await kubectl("get", "secret", "key", "-o", "jsonpath={.data.user}")).text
    (await kubectl("get", "serviceaccount", "robot")).assert_shows("NAME SECRETS AGE", "robot 0 …")
    assert ["yes"] == (await kubectl("auth", "can-i", "create", "pods")).lines


async def test_a_quota_shows_what_is_used(kubectl: Kubectl) -> None:
    """In its table and in its description."""
    await kubectl("create", "quota", "cards", "--hard=limits.nvidia.com/gpumem=3000,requests.nvidia.com/gpu=2")
    used = {"limits.nvidia.com/gpumem": "1000", "requests.nvidia.com/gpu": "1"}
    hard = {"limits.nvidia.com/gpumem": "3000", "requests.nvidia.com/gpu": "2"}
    patch = json.dumps({"status": {"hard": hard, "used": used}})
    await kubectl("patch", "quota", "cards", "--subresource=status", "-p", patch)

    (await kubectl("get", "quota")).assert_shows(
        "NAME REQUEST LIMIT AGE", "cards requests.nvidia.com/gpu: 1/2 limits.nvidia.com/gpumem: 1k/3k …"
    )
    (await kubectl("describe", "quota", "cards")).assert_shows(
        "Resource Used Hard", "limits.nvidia.com/gpumem 1k 3k", "requests.nvidia.com/gpu 1 2"
    )
