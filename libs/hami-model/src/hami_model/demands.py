"""What a whole pod asks for: each container read by each vendor.

One rule: init containers come first, so that a position here is a position in every device annotation.
"""

from hami_model.catalog import Catalog
from hami_model.objects import Container, Pod
from hami_model.request import ContainerDemand, Demand, PodDemand, Role


def pod_demand(pod: Pod, catalog: Catalog) -> PodDemand:
    """Read what every container asks of every vendor; raise ``BadDemand`` for a value that cannot be read."""
    return tuple(
        ContainerDemand(name=container.name, role=role, demands=_demands(container, catalog))
        for container, role in with_roles(pod)
    )


def with_roles(pod: Pod) -> list[tuple[Container, Role]]:
    """Pair every container, init containers first, with its role."""
    init = [(c, Role.SIDECAR if c.is_sidecar else Role.INIT) for c in pod.init_containers]
    return init + [(c, Role.APP) for c in pod.containers]


def _demands(container: Container, catalog: Catalog) -> tuple[Demand, ...]:
    if container.resources is None:
        return ()
    return tuple(demand for v in catalog.vendors if (demand := v.demand(v, container)) is not None)
