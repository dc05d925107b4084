"""The agent's own table, in memory and on disk."""

from pathlib import Path

import pytest
from hami_model.allocation import Grant
from hami_model.objects import PodRef
from hami_model.request import Role
from hami_node_agent.table import Entry, Table, TableFile

POD = PodRef("default", "p", "uid-p")


def an_entry(*ids: str, container: str = "a", position: int = 0, served: bool = True) -> Entry:
    return Entry(
        pod=POD,
        container=container,
        position=position,
        role=Role.APP,
        resource="nvidia.com/gpu",
        ids=ids,
        grants=(Grant(uuid="GPU-1", vendor="NVIDIA", memory=3000, cores=30),),
        served=served,
    )


def test_a_pending_answer_is_found_by_its_ids_in_any_order() -> None:
    """Allocate is matched by the set of IDs, never by the order of calls."""
    table = Table([an_entry("GPU-1-0", "GPU-2-0", served=False)])

    assert table.pending("nvidia.com/gpu", ["GPU-2-0", "GPU-1-0"]) == an_entry("GPU-1-0", "GPU-2-0", served=False)
    assert table.pending("nvidia.com/gpu", ["GPU-1-0"]) is None


def test_a_served_entry_is_pending_no_more() -> None:
    """The same container, served: one entry, in place of the pending one."""
    table = Table([an_entry("GPU-1-0", served=False)])
    table.put(an_entry("GPU-1-0"))

    assert table.pending("nvidia.com/gpu", ["GPU-1-0"]) is None
    assert table.entries == (an_entry("GPU-1-0"),)


def test_a_released_pod_holds_nothing() -> None:
    """All its containers leave together, in order."""
    table = Table([an_entry("GPU-1-1", container="b", position=1), an_entry("GPU-1-0")])

    assert [entry.container for entry in table.release("uid-p")] == ["a", "b"]
    assert table.holders("GPU-1-0") == ()


def test_a_restart_finds_the_table_as_it_was(tmp_path: Path) -> None:
    """Every change is on disk before the next call."""
    file = TableFile(tmp_path / "agent" / "table.json")
    table = Table(file.read(), on_change=file.write)
    table.put(an_entry("GPU-1-0"))

    assert file.read() == (an_entry("GPU-1-0"),)
    assert [path.name for path in (tmp_path / "agent").iterdir()] == ["table.json"]


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """A torn or foreign file is no reason to guess."""
    path = tmp_path / "table.json"
    path.write_text('{"type": "table.v1", "entries": [')

    with pytest.raises(ValueError, match="no table of ours"):
        TableFile(path).read()
