"""Every recorded case against the running services, over HTTP.

The services are started as users start them, once for each combination of settings that a case asks for. They stand on
the stand-in's API server; with HAMI_TEST_KUBECONFIG set, on the real one that it leads to.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hami_testkit.processes import Processes
from hami_testkit.stack import Plan, Stack, start

from tests.compat import answers
from tests.compat.over_http import Player, environment
from tests.compat.schedule_steps import compare_admission, play

REAL = Path(os.environ["HAMI_TEST_KUBECONFIG"]) if os.environ.get("HAMI_TEST_KUBECONFIG") else None

pytestmark = pytest.mark.timeout(120)


def _settings(case: dict[str, Any]) -> str:
    """Return a case's settings as a text to sort and compare by."""
    settings = {k: v for k, v in (case.get("settings") or {}).items() if k != "process"}
    return json.dumps(settings, sort_keys=True)


def _recorded(kind: str) -> list[Any]:
    """Return the cases of a kind, those with equal settings side by side."""
    found = [(case, vendor) for vendor, case in answers.recorded(kind)]
    found.sort(key=lambda pair: _settings(pair[0]))
    return [pytest.param(case, id=f"{vendor}: {case['name']}") for case, vendor in found]


class House:
    """One running system on a loop of its own, moved from settings to settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runner = asyncio.Runner()
        self._started = Processes(folder)
        self._system: Stack | None = None
        self._settings = ""

    def run(self, settings: str, work: Any) -> None:
        """Run ``work(player)`` on a system with these settings."""
        self._runner.run(self._run(settings, work))

    async def _run(self, settings: str, work: Any) -> None:
        if self._system is None or settings != self._settings:
            self._system = await self._moved_to(settings)
            self._settings = settings
        async with Player.on(self._system) as player:
            await work(player)

    async def _moved_to(self, settings: str) -> Stack:
        wanted = environment(json.loads(settings), self._folder / "device-config.yaml")
        if self._system is None:
            plan = Plan(folder=self._folder, environment=wanted, schedules=False, kubeconfig=REAL)
            return await start(plan, self._started)
        await self._system.restart_services(wanted)
        return self._system

    def close(self) -> None:
        """Stop everything."""
        self._runner.run(self._started.stop_all())
        self._runner.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Lend one running system to all cases of this module."""
    lent = House(tmp_path_factory.mktemp("http"))
    yield lent
    lent.close()


@pytest.mark.parametrize("case", _recorded("schedule"))
def test_a_recorded_placement_is_ours_too(house: House, case: dict[str, Any]) -> None:
    """Filter, bind and what stands on pod and node afterwards are HAMi's, step by step."""
    house.run(_settings(case), lambda player: play(player, case))


@pytest.mark.parametrize("case", _recorded("webhook"))
def test_a_recorded_admission_is_ours_too(house: House, case: dict[str, Any]) -> None:
    """The webhook allows, changes and denies what HAMi did."""

    async def ask(player: Player) -> None:
        await player.begin(case)
        compare_admission(case["expect"], await player.admit(case["pod"]))

    house.run(_settings(case), ask)
