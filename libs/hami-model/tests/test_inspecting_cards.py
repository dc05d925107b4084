"""The checker finds every card that has given out more than it has, by what nodes and pods say alone."""

import json

import msgspec
import pytest
from hami_model.inspection import Finding
from hami_model.objects import ContainerState, ContainerStatus, Node, Pod, Terminated
from hami_testkit.builders import a_card, a_node, a_pod
from msgspec import structs

from .inspected import MLU_HOLDS, bound, look, phase, rules

NODE = a_node("node-1").with_cards(2, memory=8000, slots=3).node()
CARD = "node-1-0"


def holding(name: str, *shares: str, **ask: int) -> Pod:
    """Return a pod of one container for each share, written as ``MiB,percent`` of the first card."""
    built = a_pod(name)
    for _ in shares:
        built = built.asking(gpu=1, **ask)
    return bound(built, holds=";".join(f"{CARD},NVIDIA,{share}:" for share in shares) + ";")


def the(findings: tuple[Finding, ...]) -> Finding:
    (finding,) = findings
    return finding


def test_a_card_that_is_exactly_full_is_fine() -> None:
    """Nothing is left over, and nothing is given twice."""
    pods = [holding("a", "4000,50"), holding("b", "2000,30"), holding("c", "2000,20")]

    assert () == look([NODE], pods)


@pytest.mark.parametrize(("shares", "rule", "had", "used"), [
    (("4000,10", "4001,10"), "over-memory", 8000, 8001),
    (("10,60", "10,41"), "over-cores", 100, 101),
    (("1,1", "1,1", "1,1", "1,1"), "over-slots", 3, 4),
])  # fmt: skip
def test_a_card_that_gave_too_much(shares: tuple[str, ...], rule: str, had: int, used: int) -> None:
    """One unit over is over; the finding says which card, how much, and who."""
    found = the(look([NODE], [holding(f"p{at}", share) for at, share in enumerate(shares)]))

    assert (rule, "node-1", CARD, had, used) == (found.rule, found.node, found.card, found.had, found.used)
    assert f"gave {used}: team-a/p0 " in found.says


def test_who_is_over_holds_nothing_and_who_ends_still_does() -> None:
    """Succeeded and Failed free a card; being deleted does not."""
    full, ended = holding("full", "8000,10"), phase(holding("ended", "8000,10"), "Failed")
    going = holding("going", "8000,10")
    going = structs.replace(going, metadata=structs.replace(going.metadata, deletion_timestamp="2027-01-01T00:00:00Z"))

    assert () == look([NODE], [full, ended])
    assert ["over-memory"] == rules(look([NODE], [full, going]))


def test_a_whole_card_that_is_shared() -> None:
    """Also with a pod that asked for no cores."""
    assert ["not-alone"] == rules(look([NODE], [holding("alone", "10,100"), holding("guest", "10,0")]))


def test_containers_of_one_pod_may_share_its_whole_card() -> None:
    """It is the pod's own."""
    assert () == look([NODE], [holding("alone", "10,100", "10,0")])


def starting(built: Pod, *, ended: bool) -> Pod:
    """Return the pod with its init containers under way or ended."""
    state = ContainerState(terminated=Terminated(exit_code=0)) if ended else ContainerState(running={})
    statuses = [ContainerStatus(name=c.name, state=state) for c in built.init_containers if not c.is_sidecar]
    return structs.replace(built, status=structs.replace(built.status, init_container_statuses=statuses))


def test_init_containers_count_one_by_one_and_only_while_they_run() -> None:
    """Two of 5000 MiB one after the other, then 3000: 5000 are used first, 3000 later."""
    built = a_pod("slow").starting_with(gpu=1).starting_with(gpu=1).asking(gpu=1)
    text = ";".join(f"{CARD},NVIDIA,{mib},0:" for mib in (5000, 5000, 3000)) + ";"
    slow, other = bound(built, holds=text), holding("other", "3001,0")

    assert ["over-memory"] == rules(look([NODE], [starting(slow, ended=False), other]))
    assert () == look([NODE], [starting(slow, ended=True), other])


def test_a_sidecar_is_added_to_what_runs_after_its_start() -> None:
    """3000 for good, beside 4000 for a while and 2000 later."""
    built = a_pod("p").beside(gpu=1).starting_with(gpu=1).asking(gpu=1)
    text = ";".join(f"{CARD},NVIDIA,{mib},0:" for mib in (3000, 4000, 2000)) + ";"
    pod = bound(built, holds=text)

    assert () == look([NODE], [starting(pod, ended=False), holding("other", "1000,0")])
    assert ["over-memory"] == rules(look([NODE], [starting(pod, ended=False), holding("other", "1001,0")]))
    assert () == look([NODE], [starting(pod, ended=True), holding("other", "3000,0")])


def test_an_annotation_without_the_groups_of_idle_containers() -> None:
    """HAMi leaves them out; the groups then belong to those that ask, in order."""
    pod = bound(a_pod("p").asking().asking(gpu=1).asking().asking(gpu=1),
                holds=f"{CARD},NVIDIA,4000,0:;node-1-1,NVIDIA,8001,0:;")  # fmt: skip
    found = the(look([NODE], [pod]))

    assert ("over-memory", "node-1-1") == (found.rule, found.card)


def test_cards_that_are_read_from_the_capacity() -> None:
    """Cambricon publishes no annotation."""
    node = a_node("node-1").with_cards(1, memory=16384, vendor="MLU", slots=100).node()
    card = "node-1-cambricon-mlu-0"
    pods = [bound(a_pod(n).asking(mlu=1), holds=f"{card},MLU,{mib},20:;", key=MLU_HOLDS)
            for n, mib in (("a", 8192), ("b", 8448))]  # fmt: skip
    found = the(look([node], pods))

    assert ("over-memory", card, 16384, 16640) == (found.rule, found.card, found.had, found.used)


def test_cores_of_a_soft_split_count_in_percent() -> None:
    """Whatever unit the node lists."""
    word = "Ascend310P"
    node = a_node("node-1").with_card(a_card("NPU-0", memory=21527, vendor=word, cores=8)).node()
    soft = {"huawei.com/vnpu-mode": "hami-core"}
    pods = [bound(a_pod(name).asking(**{f"huawei.com/{word}": 1}).annotated(soft),
                  holds=f"NPU-0,{word},1000,50:;", key=f"hami.io/{word}-devices-allocated")
            for name in ("a", "b")]  # fmt: skip

    assert () == look([node], pods)


def test_a_card_that_the_node_does_not_have() -> None:
    """It was taken out, or belongs to another node."""
    other = a_node("node-2").with_cards(1).node()
    pod = bound(a_pod("p").asking(gpu=1), holds="node-2-0,NVIDIA,10,0:;")
    found = the(look([NODE, other], [pod]))

    assert ("card-unknown", "node-1", "node-2-0", "team-a/p") == (found.rule, found.node, found.card, found.pod)


def test_a_part_of_a_card_as_hami_named_it_before() -> None:
    """``card[geometry-position]`` is that card."""
    pod = bound(a_pod("p").asking(gpu=1), holds="node-1-0[0-3],NVIDIA,10,0:;")

    assert () == look([NODE], [pod])


def test_one_card_on_two_nodes() -> None:
    """A uuid names one card in the world."""
    twin = structs.replace(NODE, metadata=structs.replace(NODE.metadata, name="node-2"))

    assert ["card-twice", "card-twice"] == rules(look([NODE, twin]))


def test_one_name_on_two_nodes() -> None:
    """Where ids are names on their node, two nodes may list the same one, and each card has its own use."""
    nodes = [a_node(name).with_card(a_card("card_0", vendor="Biren", slots=1)).node() for name in ("node-1", "node-2")]
    asking = {"birentech.com/gpu": 1}
    pods = [
        bound(a_pod(node).asking(**asking), node, holds="card_0,Biren,0,0:;", key="hami.io/Biren-devices-allocated")
        for node in ("node-1", "node-2")
    ]

    assert () == look(nodes, pods)


@pytest.mark.parametrize("text", [
    "rubbish", "{}", "[7]", "[{}]", '[{"id":7}]', '[{"id":"x","count":-1}]', '[{"id":"x","devmem":"8"}]', "[" * 3000,
])  # fmt: skip
def test_cards_that_cannot_be_read(text: str) -> None:
    """They are one finding of that node, whatever it is."""
    node = a_node("node-1").annotated({"hami.io/node-nvidia-register": text}).node()

    assert ["register-unreadable"] == rules(look([node]))


@pytest.mark.parametrize("text", [
    "", "rubbish", "[]", "b:", "D0,4,65520,100,DCU-K100:", "D0,4,-1,100,T,0,true,0,m:", "D0,4,1,100,T,0,yes,0,m:",
    "D0,4,1,100,T,0,true,0:",
])  # fmt: skip
def test_cards_of_the_older_text_that_cannot_be_read(text: str) -> None:
    """HAMi's text of seven or nine fields a card is held to as much as its JSON."""
    node = a_node("node-1").annotated({"hami.io/node-dcu-register": text}).node()

    assert ["register-unreadable"] == rules(look([node]))


def test_a_card_of_the_older_text_that_is_given_beyond_its_memory() -> None:
    """Named with seven fields as with nine."""
    text = "D0,4,8000,100,DCU-K100,-1,1:D1,4,8000,100,DCU-K100,0,t,1,:"
    node = a_node("node-1").annotated({"hami.io/node-dcu-register": text}).node()
    pods = [
        bound(
            a_pod(name).asking(**{"hygon.com/dcunum": 1}), holds="D0,DCU,5000,10:;", key="hami.io/dcu-devices-allocated"
        )
        for name in ("a", "b")
    ]
    found = next(finding for finding in look([node], pods) if finding.rule == "over-memory")

    assert ("D0", 8000, 10000) == (found.card, found.had, found.used)


def test_a_capacity_that_cannot_be_read() -> None:
    """Likewise for vendors without an annotation."""
    node = a_node("node-1").node()
    broken = structs.replace(node, status=structs.replace(node.status, capacity={"cambricon.com/mlu.smlu.vcore": "x"}))

    assert ["register-unreadable"] == rules(look([broken]))


def test_cards_that_nobody_serves() -> None:
    """The kubelet offers none of them, or the handshake is HAMi's mark of the dead."""
    mute = structs.replace(NODE, status=structs.replace(NODE.status, allocatable={"nvidia.com/gpu": "0"}))
    dead = a_node("node-1").with_cards(1).annotated({"hami.io/node-handshake": "Deleted_2026.01.01 00:00:00"}).node()

    assert ["plugin-gone"] == rules(look([mute]))
    assert ["plugin-gone"] == rules(look([dead]))


def test_single_cores_are_counted_one_by_one() -> None:
    """Two pods with the same core of a device, though the numbers add up to no more than it lists."""
    card = a_card("node-1-AWSNeuron-0", vendor="AWSNeuron", slots=2, cores=3, memory=0)
    node, asking = a_node("node-1").with_card(card).node(), {"aws.amazon.com/neuroncore": 1}
    key = "hami.io/aws-neuron-devices-allocated"
    first, second, other = (
        bound(a_pod(name).asking(**asking), holds=f"node-1-AWSNeuron-0,AWSNeuron,0,{mask}:;", key=key)
        for name, mask in (("p", 1), ("q", 2), ("r", 1))
    )

    assert () == look([node], [first, second])
    assert ["over-cores"] == rules(look([node], [first, other]))


def test_a_card_that_is_given_whole_and_in_shares() -> None:
    """Its node lists it twice, by the same index; the other card's share is nobody's business."""
    listed = [{"id": f"xpu-{i}", "index": i, "count": 4, "devmem": 98304, "devcore": 100} for i in range(2)]
    meta = {"name": "node-1", "annotations": {"hami.io/node-register-xpu": json.dumps(listed)}}
    offered = {"kunlunxin.com/xpu": "2", "kunlunxin.com/vxpu": "8"}
    node = msgspec.convert({"metadata": meta, "status": {"capacity": offered, "allocatable": offered}}, Node)

    def sharing(card: int) -> Pod:
        ask = a_pod(f"share-{card}").asking(**{"kunlunxin.com/vxpu": 1})
        return bound(ask, holds=f"xpu-{card},XPU,24576,25:;", key="hami.io/xpu-devices-allocated")

    whole = bound(
        a_pod("whole").asking(**{"kunlunxin.com/xpu": 1}),
        holds="node-1-kunlun-0,kunlun,98304,100:;",
        key="hami.io/kunlun-allocated",
    )

    assert () == look([node], [whole, sharing(1)])
    assert ["not-alone"] == rules(look([node], [whole, sharing(0), sharing(1)]))
    assert "team-a/share-0, team-a/whole" in the(look([node], [whole, sharing(0)])).says
