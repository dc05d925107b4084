"""Processes started for a demo or a test: ready when they say so, heard when they die, gone when the block ends."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hami_testkit.processes import Processes, ProcessFailedError, Running, Spec, free_port, processes
from msgspec import structs

SERVE = """
import http.server, signal, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
def stop(*_):
    open(sys.argv[2], "a").write(sys.argv[3] + "\\n"); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"


def a_process(name: str, code: str, *arguments: str, env: Mapping[str, str] | None = None, port: int = 0) -> Spec:
    url = f"http://127.0.0.1:{port}/" if port else ""
    return Spec(name=name, command=[sys.executable, "-c", code, *arguments], env=env or {}, ready_url=url)


async def a_server(started: Processes, name: str, ends: Path, *, ground: bool = False) -> Running:
    """Start a server that writes its name down when it is told to stop, and wait until it is ready."""
    port = free_port()
    command = [sys.executable, "-c", SERVE, str(port), str(ends), name]
    running = await started.start(
        Spec(name=name, command=command, ready_url=f"http://127.0.0.1:{port}/", ground=ground)
    )
    await running.wait_ready(20)
    return running


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_process_that_dies_early_says_so_with_its_log(tmp_path: Path) -> None:
    """The cause stands in the error, not in a file that is gone."""
    async with processes(tmp_path) as started:
        running = await started.start(a_process("bad", "raise SystemExit('HAMI_LISTEN is taken')", port=free_port()))
        with pytest.raises(ProcessFailedError, match=r"(?s)bad ended with 1:\n.*HAMI_LISTEN is taken"):
            await running.wait_ready(20)


async def test_a_process_that_never_gets_ready_says_so_with_its_log(tmp_path: Path) -> None:
    """Silence has a deadline."""
    async with processes(tmp_path) as started:
        running = await started.start(a_process("slow", "import signal; signal.pause()", port=free_port()))
        with pytest.raises(ProcessFailedError, match=r"slow was not ready within 0\.2 s"):
            await running.wait_ready(0.2)


async def test_everything_is_gone_after_the_block_and_the_ground_goes_last(tmp_path: Path) -> None:
    """What others stand on outlives them, whatever the order of their start."""
    ends = tmp_path / "ends"
    async with processes(tmp_path) as started:
        names = (("nats", True), ("webhook", False), ("traces", True), ("agent", False))
        running = [await a_server(started, name, ends, ground=ground) for name, ground in names]
        assert all(is_alive(process.pid) for process in running)
    order = ends.read_text().split()

    assert {"webhook", "agent"} == set(order[:2])
    assert {"nats", "traces"} == set(order[2:])
    assert not any(is_alive(process.pid) for process in running)
    assert [] == started.running


async def test_a_process_that_is_deaf_is_ended_all_the_same(tmp_path: Path) -> None:
    """First politely, then not."""
    port = free_port()
    deaf = STUBBORN.replace("signal.pause()", SERVE.replace("signal.signal(signal.SIGTERM, stop)", ""))
    spec = structs.replace(a_process("deaf", deaf, str(port), port=port), grace=0.2)
    async with processes(tmp_path) as started:
        running = await started.start(spec)
        await running.wait_ready(20)

    assert not is_alive(running.pid)
    assert "deaf" in running.log_tail()


async def test_a_process_does_not_inherit_what_would_configure_it_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer's own HAMI_ and KUBECONFIG variables stay outside; the spec's come in."""
    monkeypatch.setenv("HAMI_SECRET", "outside")
    monkeypatch.setenv("KUBECONFIG", "outside")
    code = "import os; print(sorted(k for k in os.environ if k.startswith(('HAMI_', 'KUBE')))); raise SystemExit(3)"
    async with processes(tmp_path) as started:
        running = await started.start(a_process("env", code, env={"HAMI_NATS_URL": "inside"}, port=free_port()))
        with pytest.raises(ProcessFailedError, match=r"(?s)ended with 3:\n\['HAMI_NATS_URL'\]"):
            await running.wait_ready(20)

    assert "outside" == os.environ["KUBECONFIG"]


async def test_a_process_is_killed_and_started_again_as_it_was(tmp_path: Path) -> None:
    """At once, without the polite signal, and under its old name and address."""
    ends = tmp_path / "ends"
    async with processes(tmp_path) as started:
        first = await a_server(started, "allocator", ends)
        await started.kill("allocator")
        killed = not is_alive(first.pid)
        second = await started.start_again("allocator")
        await second.wait_ready(20)

        assert killed
        assert second is started.find("allocator")
    assert ["allocator"] == ends.read_text().split()


async def test_a_process_stands_still_until_it_is_resumed(tmp_path: Path) -> None:
    """Its connections stay open and nothing is answered; a paused one can still be told to stop."""
    async with processes(tmp_path) as started:
        running = await a_server(started, "nats", tmp_path / "ends")
        running.pause()
        with pytest.raises(ProcessFailedError, match="nats was not ready"):
            await running.wait_ready(0.5)
        running.resume()
        await running.wait_ready(20)
        running.pause()
        await started.stop("nats")

    assert ["nats"] == (tmp_path / "ends").read_text().split()
