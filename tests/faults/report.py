"""What was seen in a storm, in numbers and sentences."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from msgspec import Struct

from tests.faults.kinds import BINDING, Weather
from tests.faults.witness import Witness


class Report(Struct, frozen=True, kw_only=True):
    """One storm. Times are seconds."""

    seed: int
    seconds: float
    pods: int
    """Pods that were bound: those wanted, their successors and namesakes."""
    recreated: int
    replaced: int
    bindings_sent: int
    fill: float
    """The share of all cards' memory that is held at the end."""
    faults: list[str]
    longest_pause: float
    """Between two binds."""
    after_deaths: list[float]
    """From each death or halt of a leader to the next bind."""
    landed: list[str]
    failed: list[str]
    """Pods that their node turned away or whose plugin failed; each got a successor."""
    findings: list[str]


def report(seed: int, weather: Weather, witness: Witness, faults: Sequence[str], *, seconds: float) -> Report:
    """Sum up."""
    binds = sorted(witness.binds)
    sent = [p for passages in weather.ground.passages.values() for p in passages if p.call.resource == BINDING]
    after = [min((bind for bind in binds if bind > death), default=death) - death for death in weather.deaths]
    return Report(
        seed=seed,
        seconds=round(seconds, 1),
        pods=len(binds),
        recreated=weather.user.recreated,
        replaced=weather.user.replaced,
        bindings_sent=len(sent),
        fill=round(witness.fullest(), 3),
        faults=list(faults),
        longest_pause=round(max((b - a for a, b in pairwise(binds)), default=0.0), 1),
        after_deaths=[round(each, 1) for each in after],
        landed=weather.landed,
        failed=weather.user.failed,
        findings=witness.findings,
    )


def write(seen: Report, *, log: Callable[[str], None]) -> None:
    """Print it for people."""
    log(f"seed {seen.seed}: {seen.pods} pods bound by {seen.bindings_sent} Bindings in {seen.seconds:g} s")
    log(f"{seen.recreated} re-created under their names, {seen.replaced} replaced; {seen.fill:.0%} of the memory held")
    log(f"{len(seen.faults)} faults: {'; '.join(seen.faults)}")
    log(f"longest pause between two binds {seen.longest_pause:g} s")
    log(f"from a leader's end to the next bind: {', '.join(f'{s:g} s' for s in seen.after_deaths) or 'none ended'}")
    log(f"Bindings whose sender stood still: {', '.join(seen.landed) or 'none'}")
    for text in seen.failed:
        log(f"failed at its node: {text}")
    for text in seen.findings:
        log(f"FOUND: {text}")
    log(f"{len(seen.findings)} findings")
