"""What holds while the control plane and our leader fail: a short storm on real parts, with a witness of its own."""

from pathlib import Path

import msgspec
import pytest

from tests.e2e.conftest import Report
from tests.faults import report as reports
from tests.faults.test_storm import a_program

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]
FAULTS = ("leader stopped with a Binding in flight", "API server restarted", "kube-scheduler restarted")


def test_every_pod_is_bound_once_while_leader_api_server_and_scheduler_fail(
    binaries: Path, tmp_path: Path, report: Report
) -> None:
    """No card is given twice; the Binding of the leader that stood still landed before another led, or was refused."""
    file = tmp_path / "report.json"
    options = [
        "--real",
        str(binaries),
        "--seed",
        "4",
        "--pods",
        "40",
        "--nodes",
        "10",
        "--short",
        "--report",
        str(file),
    ]
    for fault in FAULTS:
        options += ["--only", fault]
    code, said = a_program("tests.faults.storm", *options)
    assert 0 == code, said
    seen = msgspec.json.decode(file.read_bytes(), type=reports.Report)

    report(f"{seen.pods} pods bound in {seen.seconds:.0f} s; the Binding in flight: {', '.join(seen.landed)}")
    assert [] == seen.findings
    assert set(FAULTS) == set(seen.faults)
    assert 1 == len(seen.landed)
    assert seen.pods >= 40
