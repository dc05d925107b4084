"""Cards as nodes publish them: JSON, HAMi's older text, Cambricon's capacity."""

import json
from typing import Any

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.annotations import decode_links, decode_register, encode_links, encode_register
from hami_model.device import Device, MigProfile, Placement
from hami_model.errors import MalformedInventory
from hami_model.objects import Node
from hami_model.vendor import Form
from hypothesis import given
from hypothesis import strategies as st

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
REGISTER = "hami.io/node-nvidia-register"


def a_node(annotations: dict[str, str] | None = None, capacity: dict[str, Any] | None = None) -> Node:
    raw = {"metadata": {"name": "node-1", "annotations": annotations}, "status": {"capacity": capacity}}
    return msgspec.convert(raw, Node)


def discovered(node: Node, word: str) -> tuple[Device, ...]:
    vendor = CATALOG.by_word(word)
    return vendor.discover(vendor, node)


def a_card(**values: Any) -> Device:
    base = {"id": "GPU-0", "vendor": "NVIDIA", "slots": 10, "memory": 24564, "cores": 100, "model": "NVIDIA RTX"}
    return msgspec.convert({**base, **values}, Device)


def test_zero_values_are_left_out_in_hamis_form() -> None:
    """The second card is unhealthy and has an index; the first has neither key."""
    cards = (a_card(mode="hami-core"), a_card(id="GPU-1", index=1, numa=1, mode="hami-core", healthy=False))
    text = (
        '[{"id":"GPU-0","count":10,"devmem":24564,"devcore":100,"type":"NVIDIA RTX","mode":"hami-core","health":true},'
        '{"id":"GPU-1","index":1,"count":10,"devmem":24564,"devcore":100,"type":"NVIDIA RTX","numa":1,'
        '"mode":"hami-core"}]'
    )

    assert text == encode_register(cards)
    assert cards == decode_register(text, "NVIDIA")


def test_profiles_of_a_partitioned_card_are_kept() -> None:
    """Name, memory, cores, slices and where each may start."""
    profile = MigProfile(name="1g.5gb", memory=4864, cores=15, slices=1, placements=(Placement(0, 1), Placement(1, 1)))
    text = (
        '[{"id":"GPU-0","count":7,"devmem":40960,"devcore":100,"type":"NVIDIA A100","mode":"mig","migProfiles":'
        '[{"name":"1g.5gb","memoryMB":4864,"core":15,"sliceCount":1,"placements":[{"start":0,"size":1},'
        '{"start":1,"size":1}]}],"health":true}]'
    )
    card = a_card(slots=7, memory=40960, model="NVIDIA A100", mode="mig", mig_profiles=(profile,))

    assert (card,) == decode_register(text, "NVIDIA")
    assert text == encode_register([card])


def test_keys_are_read_in_any_case_and_unknown_ones_ignored() -> None:
    """HAMi reads ``ID`` as ``id``; older plugins write keys that nobody reads any more."""
    (card,) = decode_register(
        '[{"ID":"GPU-0","DevMem":100,"Health":true,"migtemplate":[],"devicevendor":"x"}]', "NVIDIA"
    )

    assert ("GPU-0", 100, True) == (card.id, card.memory, card.healthy)


@pytest.mark.parametrize("text", ["null", "[]"])
def test_no_cards_are_no_cards(text: str) -> None:
    """An empty list is an answer, not an error."""
    assert () == decode_register(text, "NVIDIA")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[null]", "card 0 must be a JSON object"),
        ("[1]", "card 0 must be a JSON object"),
        ("{}", "must be a JSON list"),
        ("GPU-0,10,24564,100,T,0,true:", "is not JSON"),
        pytest.param("[" * 5000 + "]" * 5000, "is not JSON", id="nested without end"),
        ('[{"id":""}]', "must not be empty"),
        ('[{"id":"a,b"}]', "nor hold any of"),
        ('[{"id":"A"},{"id":"A"}]', "card A is published twice"),
        ('[{"id":"A","count":"10"}]', "card 0 has count '10', not a JSON int"),
        ('[{"id":"A","count":true}]', "card 0 has count True, not a JSON int"),
        ('[{"id":"A","devmem":2147483648}]', "card 0 has devmem 2147483648"),
        ('[{"id":"A","index":-1}]', "card 0 has index -1"),
        ('[{"id":"A","count":-1}]', "card 0 has count -1, which is not from 0 to"),
        ('[{"id":"A","devmem":-1}]', "card 0 has devmem -1, which is not from 0 to"),
        ('[{"id":"A","devcore":-1}]', "card 0 has devcore -1, which is not from 0 to"),
        ('[{"id":"A","migProfiles":[{"memoryMB":-1}]}]', "card 0 has memorymb -1, which is not from 0 to"),
        ('[{"id":"a\\u0000b"}]', r"card 0 has the id 'a.x00b': it must not be empty nor hold any of , : ; or a blank"),
        ('[{"id":" "}]', "card 0 has the id ' '"),
        ('[{"id":"A"},{"id":"B","health":"yes"}]', "card 1 has health 'yes', not a JSON bool"),
        ('[{"id":"A","migProfiles":[null]}]', "card 0 must be a JSON object"),
    ],
)
def test_one_bad_element_rejects_the_annotation_and_names_it(text: str, complaint: str) -> None:
    """HAMi crashes on ``[null]``; here the node's vendor is rejected with a sentence."""
    with pytest.raises(MalformedInventory, match=complaint):
        decode_register(text, "NVIDIA")


def test_the_older_text_has_every_field_of_a_card() -> None:
    """Hygon's and Iluvatar's plugins write it: a card after another, each ended by a colon."""
    cards = (a_card(mode="hami-core"), a_card(id="GPU-1", index=1, numa=1, mode="hami-core", healthy=False))
    text = "GPU-0,10,24564,100,NVIDIA RTX,0,true,0,hami-core:GPU-1,10,24564,100,NVIDIA RTX,1,false,1,hami-core:"

    assert text == encode_register(cards, Form.TEXT)
    assert cards == decode_register(text, "NVIDIA", Form.TEXT)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a,1,2,3,T,0,T,4,mig:", (0, True, 4, "mig")),
        ("a,1,2,3,T,1,0:", (1, False, 0, "hami-core")),
        ("a,1,2,3,T,-1,TRUE,+2,:", (-1, True, 2, "")),
        (":a,1,2,3,T,0,t::", (0, True, 0, "hami-core")),
    ],
)
def test_an_older_text_may_end_before_index_and_mode(text: str, facts: tuple[object, ...]) -> None:
    """Seven fields mean index 0 and ``hami-core``; true and false are Go's words; empty places are no cards."""
    (card,) = decode_register(text, "DCU", Form.TEXT)

    assert ("a", 1, 2, 3, "T", *facts) == (
        card.id, card.slots, card.memory, card.cores, card.model, card.numa, card.healthy, card.index, card.mode,
    )  # fmt: skip


def test_an_older_text_may_name_no_card() -> None:
    """Colons alone."""
    assert () == decode_register("::", "DCU", Form.TEXT)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no list of cards: each ends with a colon"),
        ("a,1,2,3,T,0,true", "is no list of cards: each ends with a colon"),
        ('[{"id":"a"}]', "card 0 has 1 fields, not id,count,devmem,devcore,type,numa,health,index,mode"),
        ("a,1,2,3,T,0,true,5:", "card 0 has 8 fields, not id,count"),
        ("a,1,2,3,T,0,true:b:", "card 1 has 1 fields, not id,count"),
        (",1,2,3,T,0,true:", "card 0 has the id ''"),
        ("a;b,1,2,3,T,0,true:", "nor hold any of"),
        (" a,1,2,3,T,0,true:", "card 0 has the id ' a'"),
        ("a,1,2,3,T,0,true:a,1,2,3,T,0,true:", "card a is published twice"),
        ("a, 1,2,3,T,0,true:", "card 0 has count ' 1', which is not a whole number"),
        ("a,1,2.5,3,T,0,true:", "card 0 has devmem '2.5', which is not a whole number"),
        ("a,1,2,1_0,T,0,true:", "card 0 has devcore '1_0', which is not a whole number"),
        ("a,1,2,3,T,,true:", "card 0 has numa '', which is not a whole number"),
        ("a,1,2147483648,3,T,0,true:", "card 0 has devmem 2147483648, which is not from 0 to"),
        ("a,-1,2,3,T,0,true:", "card 0 has count -1, which is not from 0 to"),
        ("a,1,2,3,T,0,true,-1,:", "card 0 has index -1, which is not from 0 to"),
        ("a,1,2,3,T,0,yes:", "card 0 has health 'yes', which is neither true nor false"),
        ("a,1,2,3,T,0,:", "card 0 has health '', which is neither true nor false"),
    ],
)
def test_garbage_in_an_older_text_rejects_it_and_is_named(text: str, complaint: str) -> None:
    """As with JSON: one bad card, and the node has no cards of that vendor."""
    with pytest.raises(MalformedInventory, match=complaint):
        decode_register(text, "DCU", Form.TEXT)


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("DCU", "hami.io/node-dcu-register"),
        *((chip, f"hami.io/node-{chip}-register") for chip in ("MR-V100", "MR-V50", "BI-V150", "BI-V100")),
    ],
)
def test_hygon_and_iluvatar_publish_the_older_text(word: str, key: str) -> None:
    """Each Iluvatar chip under a key of its own, the chip's name before ``register``."""
    text = "GPU-0,4,32768,100,Some Model,1,true,2,hami-core:"

    assert (a_card(vendor=word, slots=4, memory=32768, model="Some Model", numa=1, index=2, mode="hami-core"),) == (
        discovered(a_node({key: text}), word)
    )
    assert () == discovered(a_node({}), word)
    with pytest.raises(MalformedInventory):
        discovered(a_node({key: "[]"}), word)


def test_pair_scores_stand_with_their_cards() -> None:
    """NVIDIA's second annotation tells how well cards are linked; a broken one rejects the node's NVIDIA cards."""
    register = encode_register([a_card(), a_card(id="GPU-1")])
    links = {"GPU-0": {"GPU-1": 220}, "GPU-1": {"GPU-0": 220}}
    node = a_node({REGISTER: register, "hami.io/node-nvidia-score": encode_links(links)})

    assert links == {card.id: card.links for card in discovered(node, "NVIDIA")}
    assert [{}, {}] == [card.links for card in discovered(a_node({REGISTER: register}), "NVIDIA")]
    with pytest.raises(MalformedInventory):
        discovered(a_node({REGISTER: register, "hami.io/node-nvidia-score": "220"}), "NVIDIA")
    with pytest.raises(MalformedInventory, match="must be whole numbers"):
        decode_links('[{"uuid":"A","score":{"B":"220"}}]')


def test_ascend_keeps_what_its_plugin_adds() -> None:
    """The network a card hangs on is the vendor's own fact; each chip has its own annotation."""
    text = (
        '[{"id":"VDIE-A","count":4,"devmem":65536,"devcore":20,"type":"Ascend910B3","health":true,'
        '"custominfo":{"NetworkID":0}}]'
    )
    node = a_node({"hami.io/node-register-Ascend910B3": text})

    (card,) = discovered(node, "Ascend910B3")

    assert {"NetworkID": 0} == card.custom
    assert text == encode_register([card])
    assert () == discovered(node, "Ascend310P")


@pytest.mark.parametrize(
    ("switch", "default", "soft"),
    [(None, False, False), (None, True, True), ("true", False, True), ("false", True, False), ("", True, False)],
)
def test_a_node_says_itself_whether_it_splits_ascend_cards_in_software(
    switch: str | None,
    default: bool,
    soft: bool,
) -> None:
    """Its annotation counts in both directions, the device config only where it is silent."""
    section = msgspec.structs.replace(config.DEFAULTS.vnpus or config.Vnpus(), hami_vnpu_core=default)
    catalog = vendors.build(config.DeviceConfig(vnpus=section), ascend=True, iluvatar=False)
    vendor = catalog.by_word("Ascend310P")
    assert vendor.soft_split is not None

    assert soft == vendor.soft_split(vendor, a_node({} if switch is None else {"hami-vnpu-core": switch}))


@pytest.mark.parametrize(
    ("cores", "memory", "cards"),
    [
        ("200", "192", [24576, 24576]),
        ("100", "96", [24576]),
        ("250", "240", [24576, 24576]),
        ("0", "96", []),
        (None, None, []),
    ],
)
def test_cambricon_cards_are_counted_from_the_capacity(cores: str | None, memory: str | None, cards: list[int]) -> None:
    """One card for each full 100 of cores, memory in units of 256 MiB shared out evenly."""
    written = {"cambricon.com/mlu.smlu.vcore": cores, "cambricon.com/mlu.smlu.vmemory": memory}
    found = discovered(a_node(capacity={k: v for k, v in written.items() if v is not None}), "MLU")

    assert cards == [card.memory for card in found]
    assert [f"node-1-cambricon-mlu-{index}" for index in range(len(cards))] == [card.id for card in found]


def test_a_capacity_that_is_no_number_is_refused() -> None:
    """The sentence names the node and the resource."""
    with pytest.raises(MalformedInventory, match=r"capacity cambricon\.com/mlu\.smlu\.vcore of node node-1 is 1\.5"):
        discovered(a_node(capacity={"cambricon.com/mlu.smlu.vcore": "1.5"}), "MLU")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
small = st.integers(0, 2**31 - 1)
cards = st.builds(
    Device,
    id=st.text(st.characters(exclude_characters=",:;", exclude_categories=["C", "Z"]), min_size=1, max_size=10),
    vendor=st.just("NVIDIA"),
    index=small,
    slots=small,
    memory=small,
    cores=small,
    model=texts,
    numa=small,
    mode=texts,
    healthy=st.booleans(),
    custom=st.dictionaries(texts, st.integers(0, 9), max_size=2),
)


@given(st.lists(cards, max_size=5, unique_by=lambda card: card.id))
def test_what_is_written_is_read_back(devices: list[Device]) -> None:
    """Every inventory survives its annotation."""
    assert tuple(devices) == decode_register(encode_register(devices), "NVIDIA")


@given(st.lists(cards, max_size=5, unique_by=lambda card: card.id))
def test_what_is_written_in_the_older_text_is_read_back(devices: list[Device]) -> None:
    """It knows no facts of a vendor's own, and a model or mode holds none of its separators."""
    plain = [
        msgspec.structs.replace(card, custom={}, model=_apart(card.model), mode=_apart(card.mode)) for card in devices
    ]

    assert tuple(plain) == decode_register(encode_register(plain, Form.TEXT) or ":", "NVIDIA", Form.TEXT)


def _apart(text: str) -> str:
    return text.translate(dict.fromkeys(map(ord, ",:")))


@given(st.text("a1,:; -truefalsF0", max_size=60))
def test_any_older_text_is_read_or_refused(text: str) -> None:
    """As with JSON."""
    try:
        found = decode_register(text, "DCU", Form.TEXT)
    except MalformedInventory:
        return
    assert all(card.id and card.memory >= 0 for card in found)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(["id", "count", "migProfiles", "health", "custominfo", "placements"]), x, max_size=4
            )
        ),
    )
)
def test_any_json_is_read_or_refused(value: Any) -> None:
    """A node's annotation can hold anything, and never more than rejects itself."""
    try:
        found = decode_register(json.dumps(value), "NVIDIA")
    except MalformedInventory:
        return
    assert all(card.id for card in found)
