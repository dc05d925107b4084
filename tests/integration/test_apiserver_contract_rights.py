"""What the API server says about itself and about rights: the stand-in answers as a real one does."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.status import ApiError

from tests.integration.contract import a_server

REVIEWS = "/apis/authorization.k8s.io/v1"


@pytest.fixture
async def api() -> AsyncIterator[ApiClient]:
    async with a_server() as client:
        yield client


def review(kind: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}


LIST_PODS = {"verb": "list", "resource": "pods"}


async def test_an_administrator_may_do_it(api: ApiClient) -> None:
    """The verdict comes in the status, and nothing is stored."""
    answer = await api.create(f"{REVIEWS}/selfsubjectaccessreviews",
                              review("SelfSubjectAccessReview", resourceAttributes=LIST_PODS))  # fmt: skip

    assert answer["status"]["allowed"] is True
    assert LIST_PODS == answer["spec"]["resourceAttributes"]


async def test_rights_of_another_account(api: ApiClient) -> None:
    """Named with its groups, as the server itself would see it."""
    spec = {"user": "somebody", "groups": ["system:masters"], "resourceAttributes": LIST_PODS}
    answer = await api.create(f"{REVIEWS}/subjectaccessreviews", review("SubjectAccessReview", **spec))

    assert answer["status"]["allowed"] is True


@pytest.mark.parametrize(("kind", "spec"), [
    ("SelfSubjectAccessReview", {}),
    ("SelfSubjectAccessReview", {"resourceAttributes": LIST_PODS, "nonResourceAttributes": {"path": "/"}}),
    ("SubjectAccessReview", {"resourceAttributes": LIST_PODS}),
])  # fmt: skip
async def test_a_review_that_asks_nothing(api: ApiClient, kind: str, spec: dict[str, Any]) -> None:
    """It is invalid, not denied."""
    with pytest.raises(ApiError) as refused:
        await api.create(f"{REVIEWS}/{kind.lower()}s", review(kind, **spec))

    assert 422 == refused.value.code


async def test_the_version(api: ApiClient) -> None:
    """Numbers as texts."""
    version = await api.get("/version")

    assert "1" == version["major"]
    assert version["gitVersion"].startswith(f"v1.{version['minor'].rstrip('+')}.")
