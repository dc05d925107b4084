"""``hami-allocator``: read the settings, run until told to stop."""

import sys

from hami_kit.runner import run

from hami_allocator.bootstrap import serve
from hami_allocator.settings import AllocatorSettings

SWITCH_INTERVAL = 0.0001
"""Seconds after which a thread that reads (explain, metrics) gives way to the one that decides."""


def main() -> None:
    """Run the allocator."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    run(serve, AllocatorSettings)


if __name__ == "__main__":
    main()
