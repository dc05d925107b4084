"""Whose call it is, decided from data alone."""

from hami_model.allocation import Allocation, ContainerGrants, Grant
from hami_model.objects import (
    Container,
    ContainerState,
    ContainerStatus,
    Meta,
    Pod,
    PodRef,
    PodSpec,
    PodStatus,
    Resources,
)
from hami_model.request import Role
from hami_node_agent import identity
from hami_node_agent.identity import Candidate, Offer
from hami_node_agent.inventory import card_of
from hami_node_agent.table import Entry, Table
from msgspec import structs

GPU = "nvidia.com/gpu"


def a_container(name: str, gpu: int = 0, *, sidecar: bool = False) -> Container:
    limits: dict[str, str | int | float] | None = {GPU: str(gpu)} if gpu else None
    return Container(name=name, resources=Resources(limits=limits), restart_policy="Always" if sidecar else None)


def a_pod(
    name: str,
    *containers: Container,
    init: tuple[Container, ...] = (),
    started: bool = False,
    phase: str = "Pending",
) -> Pod:
    return Pod(
        metadata=Meta(name=name, namespace="default", uid=f"uid-{name}"),
        spec=PodSpec(containers=list(containers), init_containers=list(init), node_name="n1"),
        status=PodStatus(phase=phase, start_time="2026-01-01T00:00:00Z" if started else None),
    )


def an_entry(pod: Pod, container: str, *ids: str, served: bool = True, role: Role = Role.APP) -> Entry:
    return Entry(pod=PodRef.of(pod), container=container, position=0, role=role, resource=GPU, ids=ids, served=served)


def asked(pod: Pod, table: Table, *, size: int = 1, shown: dict[str, frozenset[str]] | None = None) -> Candidate | None:
    return identity.candidate(identity.view_of(pod, GPU), shown or {}, table, resource=GPU, size=size)


def named(found: Candidate | None) -> tuple[str, str] | None:
    return (found.view.pod.name, found.container.name) if found is not None else None


def test_a_pod_without_the_resource_never_asks() -> None:
    """Pods of every kind are listed; only those that want the resource can be meant."""
    assert asked(a_pod("web", a_container("nginx")), Table()) is None


def test_containers_are_served_in_order_init_containers_first() -> None:
    """A pod with an init container and two containers asks for them one by one."""
    pod = a_pod("p", a_container("a", 1), a_container("b", 1), init=(a_container("prepare", 1),))
    table = Table()

    order = []
    while (found := asked(pod, table)) is not None and identity.rank(found) == 0:
        order.append(found.container.name)
        table.put(an_entry(pod, found.container.name, f"GPU-1-{len(order)}"))

    assert order == ["prepare", "a", "b"]


def test_the_size_tells_two_containers_apart() -> None:
    """The kubelet asks for two devices: the container that wants one is not meant, though it comes first."""
    pod = a_pod("p", a_container("one", 1), a_container("two", 2))

    assert named(asked(pod, Table(), size=2)) == ("p", "two")


def test_a_container_that_shows_ids_is_not_asking() -> None:
    """What PodResources shows as given was given, whether or not the table knows."""
    pod = a_pod("p", a_container("a", 1), a_container("b", 1))

    assert named(asked(pod, Table(), shown={"a": frozenset({"GPU-1-0"})})) == ("p", "b")


def test_an_init_container_that_has_run_never_asks_again() -> None:
    """Init containers are never shown, so a running pod looks empty all its life."""
    running = a_pod("p", a_container("app"), init=(a_container("prepare", 1),), started=True)
    table = Table([an_entry(running, "prepare", "GPU-1-0", role=Role.INIT)])

    assert asked(running, table) is None


def test_of_several_pods_those_that_started_are_no_longer_asking() -> None:
    """After a lost checkpoint running pods look empty; a pod in admission has no start time."""
    running = a_pod("running", a_container("a", 1), started=True)
    asking = a_pod("asking", a_container("a", 1))
    candidates = [c for pod in (running, asking) if (c := asked(pod, Table())) is not None]

    assert named(identity.pick(candidates)) == ("asking", "a")


def test_two_pods_that_look_alike_are_nobody() -> None:
    """Nobody guesses."""
    candidates = [c for name in ("x", "y") if (c := asked(a_pod(name, a_container("a", 1)), Table())) is not None]

    assert identity.pick(candidates) is None


def test_a_served_container_that_shows_nothing_comes_after_one_never_served() -> None:
    """A pod that just ended shows no IDs for a moment; the new one is meant."""
    ended = a_pod("ended", a_container("a", 1), started=True)
    new = a_pod("new", a_container("a", 1))
    table = Table([an_entry(ended, "a", "GPU-1-0")])
    candidates = [c for pod in (ended, new) if (c := asked(pod, table)) is not None]

    assert named(identity.pick(candidates)) == ("new", "a")


def test_an_allocate_lost_with_the_kubelet_is_served_again() -> None:
    """The kubelet died before it heard our answer and asks for the same container again: nobody else is asking."""
    pod = a_pod("p", a_container("a", 1))
    found = asked(pod, Table([an_entry(pod, "a", "GPU-1-0")]))

    assert named(identity.pick([found] if found else [])) == ("p", "a")


def test_an_answer_without_an_allocate_is_asked_anew() -> None:
    """The agent answered a preference, the kubelet restarted: the pending entry does not hide the container."""
    pod = a_pod("p", a_container("a", 1))
    found = asked(pod, Table([an_entry(pod, "a", "GPU-1-0", served=False)]))

    assert named(found) == ("p", "a")


def a_running_pod(name: str, *containers: str, down: str = "") -> Pod:
    """Return a pod whose containers run by the kubelet's report, but one."""
    pod = a_pod(name, *(a_container(c, 1) for c in containers), started=True, phase="Running")
    running = ContainerState(running={})
    reported = [ContainerStatus(name=c, state=ContainerState() if c == down else running) for c in containers]
    return structs.replace(pod, status=structs.replace(pod.status, container_statuses=reported))


def served(*pods: Pod) -> Table:
    """Return a table in which every container of these pods was served."""
    return Table([an_entry(pod, c.name, f"{pod.metadata.name}-{c.name}") for pod in pods for c in pod.containers])


def test_the_container_that_restarts_after_a_lost_checkpoint_is_the_one_that_does_not_run() -> None:
    """All containers of the node look empty then, and what runs asks for nothing."""
    whole, broken = a_running_pod("whole", "a", "b"), a_running_pod("broken", "a", "b", down="b")
    table = served(whole, broken)
    candidates = [c for pod in (whole, broken) if (c := asked(pod, table)) is not None]

    assert ("broken", "b") == named(identity.pick(candidates))


def test_two_containers_that_restart_at_once_are_nobody() -> None:
    """Containers restart in no order; the kubelet tries again when one of them runs."""
    pod = a_pod("p", a_container("a", 1), a_container("b", 1), started=True, phase="Running")

    assert asked(pod, served(pod)) is None


def test_a_kubelet_that_forgot_an_answer_asks_for_it_before_it_goes_on() -> None:
    """The container answered without an Allocate comes before the next one, which was never seen."""
    pod = a_pod("p", a_container("a", 1), a_container("b", 1))

    assert ("p", "a") == named(asked(pod, Table([an_entry(pod, "a", "GPU-1-0", served=False)])))


def test_the_ids_of_an_init_container_name_its_pod() -> None:
    """The kubelet hands an init container's IDs on to the next container of the same pod."""
    pod = a_pod("p", a_container("app", 1), init=(a_container("prepare", 1),))
    table = Table([an_entry(pod, "prepare", "GPU-1-0", role=Role.INIT)])
    view = identity.view_of(pod, GPU)

    owner = identity.after_init(["GPU-1-0"], lambda uid: view if uid == "uid-p" else None, table, resource=GPU)
    following = identity.next_container(view, table, resource=GPU, size=1)

    assert owner == view
    assert following is not None
    assert following.name == "app"


def test_the_ids_of_an_ordinary_container_name_nobody() -> None:
    """Only init containers pass their devices on."""
    pod = a_pod("p", a_container("a", 1), a_container("b", 1))
    table = Table([an_entry(pod, "a", "GPU-1-0")])

    assert identity.after_init(["GPU-1-0"], lambda _: identity.view_of(pod, GPU), table, resource=GPU) is None


def test_a_pushed_allocation_tells_what_a_pod_wants() -> None:
    """A pod that our watch does not show yet is known from what the leader pushed."""
    grants = tuple(Grant(uuid=f"GPU-{i}", vendor="NVIDIA", memory=1, cores=0) for i in range(2))
    allocation = Allocation(
        pod=PodRef("default", "p", "u"),
        node="n1",
        containers=(ContainerGrants(name="i", role=Role.INIT), ContainerGrants(name="a", role=Role.APP, grants=grants)),
    )

    view = identity.view_of_allocation(allocation, "NVIDIA")

    assert [("a", 1, 2)] == [(w.name, w.position, w.count) for w in view.wanting]


def choose(offer: Offer, *cards: str, held: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    return identity.choose_ids(offer, cards=cards, is_held=lambda i: i in held, card_of=card_of)


def test_the_ids_answered_are_of_the_allocated_cards() -> None:
    """Two cards were allocated: one free ID of each is answered, the lowest."""
    offer = Offer(available=("GPU-a-10", "GPU-a-2", "GPU-b-0", "GPU-c-0"), must_include=(), size=2)

    assert choose(offer, "GPU-a", "GPU-b") == ("GPU-a-2", "GPU-b-0")


def test_an_id_that_another_pod_still_holds_is_never_answered() -> None:
    """Force deletion: the kubelet offers an ID whose container runs on."""
    offer = Offer(available=("GPU-a-0", "GPU-a-1"), must_include=(), size=1)

    assert choose(offer, "GPU-a", held=("GPU-a-0",)) == ("GPU-a-1",)


def test_another_cards_id_stands_in_where_a_card_has_none_free() -> None:
    """The ID is a number to the kubelet; the container gets the cards of its allocation."""
    offer = Offer(available=("GPU-b-0",), must_include=(), size=1)

    assert choose(offer, "GPU-a") == ("GPU-b-0",)


def test_ids_that_must_be_included_are() -> None:
    """An init container had one of the two: the kubelet wants it in the answer."""
    offer = Offer(available=("GPU-a-0", "GPU-a-1", "GPU-b-0"), must_include=("GPU-b-0",), size=2)

    assert choose(offer, "GPU-a", "GPU-b") == ("GPU-b-0", "GPU-a-0")


def test_too_few_free_ids_are_no_answer() -> None:
    """Fewer IDs than asked for would make the kubelet choose at random."""
    assert choose(Offer(available=("GPU-a-0",), must_include=(), size=2), "GPU-a", "GPU-b") is None
