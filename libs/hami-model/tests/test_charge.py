"""What a pod costs is the most that its containers ever hold at the same time."""

from collections.abc import Iterator, Sequence

from hami_model.allocation import Allocation, ContainerGrants, Grant
from hami_model.charge import Card, Charge, charge
from hami_model.objects import Container, ContainerState, ContainerStatus, Pod, PodRef, PodSpec, PodStatus, Terminated
from hami_model.request import Role
from hypothesis import given
from hypothesis import strategies as st

A, B = ("NVIDIA", "GPU-a"), ("NVIDIA", "GPU-b")


def on(card: Card, memory: int, cores: int = 0) -> Grant:
    return Grant(vendor=card[0], uuid=card[1], memory=memory, cores=cores)


def held(role: Role, *grants: Grant, name: str = "") -> ContainerGrants:
    return ContainerGrants(name=name or role.value, role=role, grants=grants)


def an_allocation(*containers: ContainerGrants) -> Allocation:
    named = tuple(held(c.role, *c.grants, name=f"c{i}") for i, c in enumerate(containers))
    return Allocation(pod=PodRef("team-a", "train", "uid-1"), node="node-1", containers=named)


def its_pod(allocation: Allocation, ended: dict[str, int] | None = None) -> Pod:
    """Return the pod of an allocation, whose init containers ``ended`` with these codes."""
    init = [c for c in allocation.containers if c.role is not Role.APP]
    statuses = [
        ContainerStatus(name=name, state=ContainerState(terminated=Terminated(exit_code=code)))
        for name, code in (ended or {}).items()
    ]
    return Pod(
        spec=PodSpec(
            init_containers=[
                Container(name=c.name, restart_policy="Always" if c.role is Role.SIDECAR else None) for c in init
            ],
            containers=[Container(name=c.name) for c in allocation.containers if c.role is Role.APP],
        ),
        status=PodStatus(init_container_statuses=statuses),
    )


def test_containers_are_added_and_the_largest_init_container_counts() -> None:
    """HAMi's own example: two init containers and two containers share card A."""
    allocation = an_allocation(
        held(Role.INIT, on(A, 4000, 50)),
        held(Role.INIT, on(A, 6000, 10)),
        held(Role.APP, on(A, 3000, 30)),
        held(Role.APP, on(A, 2000, 30), on(B, 2000, 30)),
    )

    expected = {A: Charge(slots=2, memory=6000, cores=60), B: Charge(slots=1, memory=2000, cores=30)}
    assert expected == charge(allocation, its_pod(allocation))


def test_a_sidecar_is_added_to_whatever_runs_after_its_start() -> None:
    """The init container after the sidecar runs beside it, the one before it does not."""
    allocation = an_allocation(
        held(Role.INIT, on(A, 5000)), held(Role.SIDECAR, on(A, 1000)), held(Role.INIT, on(A, 4500)),
        held(Role.APP, on(A, 3000)),
    )  # fmt: skip

    assert {A: Charge(slots=2, memory=5500)} == charge(allocation, its_pod(allocation))


def test_a_running_sidecar_does_not_keep_the_init_part() -> None:
    """The init part falls away when the ordinary init containers have ended with 0; a sidecar never ends."""
    allocation = an_allocation(
        held(Role.INIT, on(A, 9000), on(B, 9000)), held(Role.SIDECAR, on(A, 1000)), held(Role.APP, on(A, 3000))
    )

    assert {A: Charge(slots=2, memory=4000)} == charge(allocation, its_pod(allocation, ended={"c0": 0}))


def test_an_init_container_that_failed_will_run_again() -> None:
    """Only an end with 0 frees what the init container holds."""
    allocation = an_allocation(held(Role.INIT, on(A, 9000)), held(Role.APP, on(A, 3000)))

    assert charge(allocation, its_pod(allocation)) == charge(allocation, its_pod(allocation, ended={"c0": 1}))


GRANTS = st.builds(on, st.sampled_from([A, B]), st.integers(0, 9000), st.integers(0, 100))
INIT = st.builds(
    lambda role, grants: held(role, *grants), st.sampled_from([Role.INIT, Role.SIDECAR]), st.lists(GRANTS, max_size=3)
)
APPS = st.builds(lambda grants: held(Role.APP, *grants), st.lists(GRANTS, max_size=3))
ALLOCATIONS = st.builds(
    lambda init, apps: an_allocation(*init, *apps), st.lists(INIT, max_size=5), st.lists(APPS, max_size=3)
)


def moments(containers: Sequence[ContainerGrants]) -> Iterator[list[ContainerGrants]]:
    """Live a pod's life: who runs at each moment, init containers one after the other, sidecars from their turn on."""
    sidecars: list[ContainerGrants] = []
    for container in containers:
        if container.role is Role.SIDECAR:
            sidecars.append(container)
        if container.role is Role.INIT:
            yield [*sidecars, container]
    yield [*sidecars, *(c for c in containers if c.role is Role.APP)]


def peak(of: Iterator[list[ContainerGrants]], card: Card) -> Charge:
    memory = cores = slots = 0
    for running in of:
        mine = [(c, g) for c in running for g in c.grants if (g.vendor, g.uuid) == card]
        memory = max(memory, sum(g.memory for _, g in mine))
        cores = max(cores, sum(g.cores for _, g in mine))
        init = any(c.role is Role.INIT for c, _ in mine)
        slots = max(slots, sum(1 for c, _ in mine if c.role is not Role.INIT) + init)
    return Charge(slots=slots, memory=memory, cores=cores)


@given(ALLOCATIONS)
def test_a_pod_costs_the_most_it_ever_holds_at_once(allocation: Allocation) -> None:
    """The formula equals living the pod's life and noting the peak, card by card, number by number."""
    cards = {(g.vendor, g.uuid) for c in allocation.containers for g in c.grants}

    expected = {card: peak(moments(allocation.containers), card) for card in cards}
    assert expected == charge(allocation, its_pod(allocation))


@given(ALLOCATIONS)
def test_ended_init_containers_only_ever_lower_the_cost(allocation: Allocation) -> None:
    """What remains are the containers and sidecars, and never more than before."""
    ended = {c.name: 0 for c in allocation.containers if c.role is Role.INIT}
    before, after = charge(allocation, its_pod(allocation)), charge(allocation, its_pod(allocation, ended))
    stay = [c for c in allocation.containers if c.role is not Role.INIT]

    assert {card: peak(iter([stay]), card) for card in after} == after
    assert all((before[card] | cost) == before[card] for card, cost in after.items())
