"""One checkup: every look, one after the other, and what could not be looked at.

One rule: nothing that fails ends the checkup, except that there is no API server to ask.
"""

from collections.abc import Awaitable, Sequence
from pathlib import Path

from hami_kit.bus import BusSettings
from hami_kit.clock import SystemClock
from hami_kit.errors import BoundaryError
from hami_kit.kube import Kube
from hami_kit.kube.server import about
from hami_kit.kube.sight import inspect_cluster
from hami_kit.settings import load_device_config
from hami_model import vendors
from hami_model.inspection import Finding
from msgspec import MsgspecError, Struct

from hamictl.doctor import places, rules
from hamictl.doctor.scheduler import Wanted
from hamictl.errors import MISUSED, Problem


class Patient(Struct, frozen=True, kw_only=True):
    """What to look at, and what it is held to."""

    kubeconfig: str
    bus: BusSettings
    device_config: Path | None
    ascend: bool
    iluvatar: bool
    scheduler: str
    scheduler_config: Path | None
    bind_timeout: float
    lease_namespace: str
    allocator_as: str
    agent_as: str
    readyz: Sequence[str]


async def examine(patient: Patient) -> list[Finding]:
    """Return everything that is wrong, and everything that could not be looked at."""
    device_config = load_device_config(patient.device_config)
    catalog = vendors.build(device_config, ascend=patient.ascend, iluvatar=patient.iluvatar)
    wanted = Wanted(scheduler=patient.scheduler, catalog=catalog, bind_timeout=patient.bind_timeout)
    try:
        async with Kube.connect(patient.kubeconfig or None) as kube:
            return await _Checkup(patient, kube, wanted).run()
    except BoundaryError as e:
        raise Problem(f"nothing could be checked: {e}", code=MISUSED) from e


class _Checkup:
    def __init__(self, patient: Patient, kube: Kube, wanted: Wanted) -> None:
        self._patient = patient
        self._wanted = wanted
        self._kube = kube
        self._found: list[Finding] = []

    async def run(self) -> list[Finding]:
        patient, kube, wanted = self._patient, self._kube, self._wanted
        server = await about(kube, SystemClock())
        self._found += places.server(server)
        await self._look("nodes and pods", inspect_cluster(kube, wanted.catalog, scheduler=wanted.scheduler))
        await self._look(
            "kube-scheduler's configuration", places.scheduler_config(kube, patient.scheduler_config, wanted)
        )
        await self._look("the webhook's configuration", places.webhooks(kube, now=server.time))
        await self._look("the leader and the rights of services", self._leader(now=server.time))
        await self._look("the rights of hamictl", self._own_rights())
        await self._look("who answers on the bus", places.on_the_bus(patient.bus))
        await self._look("what node-agents see on their cards", places.on_the_cards(patient.bus))
        for url in patient.readyz:
            await self._look(url, places.ready(url))
        return self._found

    async def _look(self, what: str, looking: Awaitable[Sequence[Finding]]) -> None:
        try:
            self._found += await looking
        except (BoundaryError, Problem, MsgspecError) as e:
            self._found.append(rules.unchecked(what, e))

    async def _leader(self, *, now: float) -> list[Finding]:
        patient, namespace = self._patient, self._patient.lease_namespace
        holder, found = await places.lease(self._kube, namespace, now=now)
        account = patient.allocator_as or await places.account_of(self._kube, namespace, holder)
        for program, named, option in (
            ("allocator", account, "--allocator-as"),
            ("node-agent", patient.agent_as, "--agent-as"),
        ):
            if named:
                found += await places.rights(self._kube, program, named, lease_namespace=namespace)
            else:
                why = f"name its account with {option} system:serviceaccount:NAMESPACE:NAME"
                found.append(rules.unchecked(f"the rights of the {program}", why))
        return found

    async def _own_rights(self) -> list[Finding]:
        missing = await places.own_rights(self._kube, lease_namespace=self._patient.lease_namespace)
        return [rules.unchecked(f"what needs the right to {deed}", "this account does not have it") for deed in missing]
