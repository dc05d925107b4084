"""Run seeds, or replay one: ``python -m tests.simulation.run --seeds 10000``, ``… --seed 7 --log``.

One rule: a seed means the same everywhere: texts are hashed alike in every process that runs one.
"""

import argparse
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from tests.simulation.world import STORY, Outcome, run


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; return 0 when everything held."""
    options = _options(arguments)
    if os.environ.get("PYTHONHASHSEED") != "0":
        command = [sys.executable, "-m", "tests.simulation.run", *arguments]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": "0"})  # noqa: S606 - ourselves again
    logging.disable(logging.CRITICAL)  # what goes wrong here is meant to
    if options.seed is not None:
        return _replay(options.seed, whole=options.log)
    return _run_many(range(options.start, options.start + options.seeds), jobs=options.jobs)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--from", dest="start", type=int, default=1, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--log", action="store_true", help="with --seed: print the whole story")
    return parser.parse_args(arguments)


def _replay(seed: int, *, whole: bool) -> int:
    outcome = run(seed)
    print("\n".join(outcome.story if whole else outcome.story[-STORY:]))
    print(f"seed {seed}: {outcome.failure or 'all held'}; {outcome.bound} pods bound in {outcome.seconds:.0f} s")
    return 1 if outcome.failure else 0


def _run_many(seeds: range, *, jobs: int) -> int:
    began, bound, virtual = time.monotonic(), 0, 0.0
    for outcome in _outcomes(seeds, jobs):
        bound, virtual = bound + outcome.bound, virtual + outcome.seconds
        if outcome.failure:
            print(describe(outcome))
            return 1
    seconds = time.monotonic() - began
    print(
        f"{len(seeds)} seeds from {seeds.start} held: {bound} pods bound in {virtual / 3600:.1f} virtual hours, "
        f"{len(seeds) / seconds * 60:.0f} runs a minute"
    )
    return 0


def _outcomes(seeds: Iterable[int], jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=500) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=5)


def describe(outcome: Outcome) -> str:
    """Say which seed failed, what did not hold, the last steps, and how to see it again."""
    return "\n".join(
        (
            *outcome.story[-STORY:],
            f"seed {outcome.seed}: {outcome.failure}",
            f"see it again: python -m tests.simulation.run --seed {outcome.seed} --log",
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
