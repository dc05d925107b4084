"""Objects that kubectl writes as protobuf."""

import pytest
from hami_testkit.cluster import typed, typed_pb2
from hami_testkit.cluster.status import ApiError


def envelope(kind: str, raw: bytes = b"") -> bytes:
    head = typed_pb2.TypeMeta(apiVersion="v1", kind=kind)
    return typed.MAGIC + typed_pb2.Unknown(typeMeta=head, raw=raw).SerializeToString()


def test_a_quota_is_read_as_if_it_were_json() -> None:
    """Amounts are texts; a label that is called string stays what it is."""
    meta = typed_pb2.ObjectMeta(name="cards", labels={"string": "x"})
    hard = {"requests.nvidia.com/gpu": typed_pb2.Quantity(string="2")}
    quota = typed_pb2.ResourceQuota(metadata=meta, spec=typed_pb2.ResourceQuotaSpec(hard=hard))

    assert {
        "kind": "ResourceQuota",
        "apiVersion": "v1",
        "metadata": {"name": "cards", "labels": {"string": "x"}},
        "spec": {"hard": {"requests.nvidia.com/gpu": "2"}},
    } == typed.decode(envelope("ResourceQuota", quota.SerializeToString()))


def test_bytes_of_a_secret_are_written_as_json_writes_them() -> None:
    """In base64."""
    secret = typed_pb2.Secret(metadata=typed_pb2.ObjectMeta(name="key"), data={"user": b"me"})

    assert {"user": "bWU="} == typed.decode(envelope("Secret", secret.SerializeToString()))["data"]


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        (envelope("Deployment"), 415, "the stand-in reads no Deployment as protobuf: send application/json, or give"),
        (typed.MAGIC, 415, "the stand-in reads no such object as protobuf"),
        (envelope("Secret", b"\x0a\xff"), 400, "the object provided is unrecognized"),
        (b"{}", 400, "the object provided is unrecognized"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_way_out(body: bytes, code: int, sentence: str) -> None:
    """Another kind, or no protobuf at all."""
    with pytest.raises(ApiError) as refused:
        typed.decode(body)

    assert (code, True) == (refused.value.code, refused.value.message.startswith(sentence)), refused.value.message
