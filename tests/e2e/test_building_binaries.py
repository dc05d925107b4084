"""Where Kubernetes' binaries come from, with a go command that only pretends."""

from pathlib import Path

import pytest

from tests.e2e.binaries import build
from tests.e2e.binaries.build import BESIDE, COMMANDS, HERE, Module, NoBinaries, binaries, module_text

GO = """#!/bin/sh
echo "$@" >> {log}
for word in "$@"; do test "$previous" = -o && echo "a program" > "$word"; previous="$word"; done
{then}
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the file in which the pretended go writes its calls."""
    return tmp_path / "calls"


def a_go(tmp_path: Path, log: Path, then: str = "") -> dict[str, str]:
    """Put a pretended go on the PATH, and return the environment."""
    place = tmp_path / "bin"
    place.mkdir(exist_ok=True)
    (place / "go").write_text(GO.format(log=log, then=then))
    (place / "go").chmod(0o755)
    return {"PATH": f"{place}:/usr/bin:/bin"}


def test_all_are_built_once(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second call does nothing and says nothing; the pinned version is in the folder's name and in the server."""
    env, pinned = a_go(tmp_path, log), Module.of(HERE / "kubernetes", "k8s.io/kubernetes").version

    first = binaries(tools=tmp_path / "t", env=env)
    said, calls = capsys.readouterr().out, log.read_text()
    again = binaries(tools=tmp_path / "t", env=env)

    assert tmp_path / "t" / "kubernetes" / pinned == first == again
    assert {*BESIDE, *COMMANDS} == {path.name for path in first.iterdir() if path.is_file()}
    assert all(f"building {name} " in said for name in (*BESIDE, *COMMANDS))
    assert f"gitVersion=v{pinned}" in calls
    assert ("", calls) == (capsys.readouterr().out, log.read_text())


def test_what_cannot_be_built_leaves_nothing(tmp_path: Path, log: Path) -> None:
    """The compiler's own words are told, and the next call begins anew."""
    broken = a_go(tmp_path, log, then='echo "undefined: x" >&2; exit 1')

    with pytest.raises(NoBinaries, match=r"go build failed in .*etcd:\nundefined: x"):
        binaries(tools=tmp_path / "t", env=broken)

    assert binaries(tools=tmp_path / "t", env=a_go(tmp_path, log)).is_dir()


def test_without_go_it_is_said_how_to_get_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with both ways out."""
    monkeypatch.setattr(build, "USUAL_GO", (tmp_path / "none",))

    with pytest.raises(NoBinaries, match=r"no go is on the PATH: make go .* KUBEBUILDER_ASSETS"):
        binaries(tools=tmp_path, env={"PATH": str(tmp_path)})


def test_a_folder_that_is_named_is_used_as_it_is(tmp_path: Path) -> None:
    """It must hold everything: what is missing is named."""
    env = {"KUBEBUILDER_ASSETS": str(tmp_path)}
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).touch()

    with pytest.raises(NoBinaries, match=f"has no {', '.join(COMMANDS[1:])}: put them there"):
        binaries(env=env)
    for name in COMMANDS:
        (tmp_path / name).touch()

    assert tmp_path == binaries(env=env)


def test_another_version_is_pinned_from_its_own_module() -> None:
    """Each sister module that lies in Kubernetes' own repository is taken as published with the same version."""
    described = {
        "Go": "1.24.0",
        "Godebug": [{"Key": "default", "Value": "go1.24"}],
        "Replace": [
            {"Old": {"Path": "k8s.io/kubelet"}, "New": {"Path": "./staging/src/k8s.io/kubelet"}},
            {"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}},
            {"Old": {"Path": "example.org/x"}, "New": {"Path": "example.org/y", "Version": "v1.0.0"}},
        ],
    }

    assert module_text(described, "1.33.5").splitlines() == [
        "module hami.io/e2e/kubernetes", "", "go 1.24.0", "godebug default=go1.24", "",
        "require k8s.io/kubernetes v1.33.5", "",
        "replace k8s.io/api => k8s.io/api v0.33.5", "replace k8s.io/kubelet => k8s.io/kubelet v0.33.5",
    ]  # fmt: skip
