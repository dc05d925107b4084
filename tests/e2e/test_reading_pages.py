"""What counts as a command of a page: what is missed here would be typed by no test."""

import re
from pathlib import Path

import pytest

from tests.e2e import pages
from tests.e2e.pages import FOLDER, commands

PAGE = """# Install

```console
kubectl label node NODE gpu=on        # each node
helm install hami chart \\
    --set a=b      # or c
```

## Back

1. Like this:

   ```console
   for s in a b; do echo $s; done
   ```

| left | remove |
| --- | --- |
| a label | `kubectl label node NODE gpu-` |
| a `helm` of yours | by hand |
"""


def test_blocks_and_tables_hold_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that go on are one command; what is said about it is none of it."""
    (tmp_path / "page.md").write_text(PAGE)
    monkeypatch.setattr(pages, "FOLDER", tmp_path)

    assert [
        ("Install", "kubectl label node NODE gpu=on"),
        ("Install", "helm install hami chart --set a=b"),
        ("Back", "for s in a b; do echo $s; done"),
        ("Back", "kubectl label node NODE gpu-"),
    ] == [(command.section, command.text) for command in commands("page.md")]


@pytest.mark.parametrize("page", ["install", "upgrade-from-hami", "monitor", "uninstall"])
def test_the_pages_hide_no_command_in_a_block_of_another_kind(page: str) -> None:
    """Whatever stands in a block is to be typed."""
    opened = re.findall(r"^ *```(\w*)$", (FOLDER / "how-to" / f"{page}.md").read_text(), re.MULTILINE)

    assert ["console", ""] * (len(opened) // 2) == opened
    assert commands(f"how-to/{page}.md")
