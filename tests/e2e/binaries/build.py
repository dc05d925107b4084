"""Kubernetes' own binaries, built with Go from the module proxy: nothing else is downloaded, and once built they stay.

One rule: ``kubernetes/``, ``etcd/`` and ``helm/`` beside this file pin what is built. Another version of Kubernetes
gets a module made from its own go.mod. ``KUBEBUILDER_ASSETS`` names a folder of binaries to use instead.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

HERE = Path(__file__).parent
TOOLS = HERE.parents[2] / ".tools"
COMMANDS = ("kube-apiserver", "kube-scheduler", "kube-controller-manager", "kubelet", "kube-proxy", "kubectl")
BESIDE = {
    "etcd": ("go.etcd.io/etcd/server/v3", ".", ""),
    "helm": ("helm.sh/helm/v3", "helm.sh/helm/v3/cmd/helm", "-X helm.sh/helm/v3/internal/version.version=v{}"),
}
"""What goes with every version of Kubernetes: its module, the package to build, and the linker's flags."""
USUAL_GO = (Path("/usr/local/go/bin/go"), TOOLS / "bin" / "go")
"""Where Go's own installer puts it, and ``make go`` where there is none."""
VERSION_PACKAGE = "k8s.io/component-base/version"
PLACE = "KUBEBUILDER_ASSETS"


class NoBinaries(Exception):
    """There are no binaries, and why none can be made here, in one sentence."""


class Module(Struct, frozen=True, kw_only=True):
    """A Go module that pins what is built from it."""

    folder: Path
    requires: str
    version: str

    @classmethod
    def of(cls, folder: Path, requires: str) -> "Module":
        """Read which version of its one dependency a module pins."""
        words = (line.split() for line in (folder / "go.mod").read_text().splitlines())
        version = next(line[2] for line in words if line[:2] == ["require", requires])
        return cls(folder=folder, requires=requires, version=version.removeprefix("v"))


def binaries(version: str = "", *, tools: Path = TOOLS, env: Mapping[str, str] = os.environ) -> Path:
    """Return a folder of etcd and all of Kubernetes' commands, after building what is not there yet."""
    if given := env.get(PLACE):
        return _complete(Path(given))
    pinned = Module.of(HERE / "kubernetes", "k8s.io/kubernetes")
    version = version.removeprefix("v") or pinned.version
    if not re.fullmatch(r"\d+\.\d+\.\d+.*", version) or version.endswith(".x"):
        version = newest(Go(find_go(env), env), version.removesuffix(".x"))
    place = tools / "kubernetes" / version
    for name in BESIDE:
        _beside(name, place, tools=tools, env=env)
    if wanted := [name for name in COMMANDS if not (place / name).is_file()]:
        go = Go(find_go(env), env)
        kubernetes = pinned if version == pinned.version else write_module(go, version, place / "module")
        for name in wanted:
            go.build(name, kubernetes, f"k8s.io/kubernetes/cmd/{name}", place, _flags(version))
    return place


def _beside(name: str, place: Path, *, tools: Path, env: Mapping[str, str]) -> None:
    """Build what is no part of Kubernetes into a folder of its own version, and link it where the others are."""
    requires, package, flags = BESIDE[name]
    module = Module.of(HERE / name, requires)
    if not (tools / name / module.version / name).is_file():
        flags = f"-s -w {flags.format(module.version)}".strip()
        Go(find_go(env), env).build(name, module, package, tools / name / module.version, flags)
    place.mkdir(parents=True, exist_ok=True)
    (place / name).unlink(missing_ok=True)
    (place / name).symlink_to(Path("..", "..", name, module.version, name))


def _complete(folder: Path) -> Path:
    missing = [name for name in ("etcd", *COMMANDS) if not (folder / name).is_file()]
    if missing:
        raise NoBinaries(f"{PLACE}={folder} has no {', '.join(missing)}: put them there, or unset it to build all")
    return folder


def _flags(version: str) -> str:
    """Return linker flags: without its version a server takes itself for 0.0."""
    major, minor, *_ = version.split(".")
    said = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s", "-w", *(f"-X {VERSION_PACKAGE}.{name}={value}" for name, value in said.items())])


def find_go(env: Mapping[str, str]) -> str:
    """Return the go command."""
    found = shutil.which("go", path=env.get("PATH", "")) or next((str(go) for go in USUAL_GO if go.is_file()), "")
    if not found:
        raise NoBinaries(
            "Kubernetes' binaries are built with Go, and no go is on the PATH: make go puts one into .tools, or name "
            f"a folder of {', '.join(('etcd', *COMMANDS))} in {PLACE}"
        )
    return found


class Go:
    """The go command, politely: it takes the machine only where nobody else wants it."""

    def __init__(self, command: str, env: Mapping[str, str]) -> None:
        self._command = command
        self._env = {**env, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}

    def build(self, name: str, module: Module, package: str, place: Path, flags: str) -> None:
        """Build one command into a folder, where it appears when it is whole; say what is done and how long it took."""
        print(f"building {name} {module.version} …", end="", flush=True)
        began, half = time.monotonic(), place / f".{name}"
        place.mkdir(parents=True, exist_ok=True)
        self.run("build", "-trimpath", "-ldflags", flags, "-o", str(half), package, cwd=module.folder)
        half.replace(place / name)
        print(f" {time.monotonic() - began:.0f} s", flush=True)

    def run(self, *arguments: str, cwd: Path) -> str:
        """Run go in a folder, and return what it prints."""
        command = ["nice", "-n", "10", self._command, *arguments]
        done = subprocess.run(command, cwd=cwd, env=self._env, capture_output=True, text=True, check=False)
        if done.returncode:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
            raise NoBinaries(f"go {arguments[0]} failed in {cwd}:\n{end}")
        return done.stdout


def write_module(go: Go, version: str, folder: Path) -> Module:
    """Write a module that pins another version of Kubernetes.

    ``k8s.io/kubernetes`` points its sister modules at folders of its own repository; each is pinned to what was
    published of it with the same version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    print(f"pinning k8s.io/kubernetes v{version} …", flush=True)
    found = json.loads(go.run("mod", "download", "-json", f"k8s.io/kubernetes@v{version}", cwd=folder))
    described = json.loads(go.run("mod", "edit", "-json", found["GoMod"], cwd=folder))
    (folder / "go.mod").write_text(module_text(described, version))
    shutil.copy(HERE / "kubernetes" / "commands.go", folder)
    go.run("mod", "tidy", cwd=folder)
    return Module.of(folder, "k8s.io/kubernetes")


def newest(go: "Go", minor: str) -> str:
    """Return the newest version of 1.33, say."""
    question = ["list", "-m", "-f", "{{.Version}}", f"k8s.io/kubernetes@v{minor}"]
    return go.run(*question, cwd=HERE / "kubernetes").strip().removeprefix("v")


def module_text(described: Mapping[str, Any], version: str) -> str:
    """Return the go.mod that pins Kubernetes, from ``go mod edit -json`` of its own go.mod."""
    sister = f"v0.{version.partition('.')[2]}"
    staged = [r["Old"]["Path"] for r in described["Replace"] or [] if r["New"]["Path"].startswith("./staging/")]
    lines = [
        "module hami.io/e2e/kubernetes", "", f"go {described['Go']}",
        *(f"godebug {g['Key']}={g['Value']}" for g in described.get("Godebug") or []), "",
        f"require k8s.io/kubernetes v{version}", "",
        *(f"replace {path} => {path} {sister}" for path in sorted(staged)),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Build what is not there yet, and print the folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.binaries.build", description=main.__doc__)
    parser.add_argument("--kubernetes", default="", help="its version, such as 1.33.5; absent: the pinned one")
    try:
        print(binaries(parser.parse_args().kubernetes))
    except NoBinaries as error:
        sys.exit(f"no binaries: {error}")


if __name__ == "__main__":
    main()
