"""Objects that came as protobuf, read as if they had come as JSON.

One rule: only what kubectl itself sends so is read (``typed.proto``); any other kind is refused with the way out.
"""

from __future__ import annotations

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from hami_testkit.cluster import typed_pb2
from hami_testkit.cluster.status import ApiError, Json, bad_request

MAGIC = b"k8s\0"
_KINDS: dict[str, type[Message]] = {
    kind.DESCRIPTOR.name: kind
    for kind in (
        typed_pb2.Namespace, typed_pb2.ServiceAccount, typed_pb2.ConfigMap, typed_pb2.Secret, typed_pb2.ResourceQuota,
        typed_pb2.SelfSubjectAccessReview,
    )
}  # fmt: skip


def decode(body: bytes) -> Json:
    """Read one object."""
    try:
        envelope = typed_pb2.Unknown.FromString(body.removeprefix(MAGIC))
        kind = envelope.typeMeta.kind
        if kind not in _KINDS:
            text = f"the stand-in reads no {kind or 'such object'} as protobuf: send application/json, or give kubectl "
            raise ApiError(415, f"{text}a file (-f)")
        found = _KINDS[kind].FromString(envelope.raw)
    except DecodeError as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from error
    said = MessageToDict(found, preserving_proto_field_name=True)
    if hard := (said.get("spec") or {}).get("hard"):  # in JSON a quantity is a text
        said["spec"]["hard"] = {name: amount["string"] for name, amount in hard.items()}
    return {"kind": kind, "apiVersion": envelope.typeMeta.apiVersion, **said}
