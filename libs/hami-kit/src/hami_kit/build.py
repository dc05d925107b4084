"""What a program was built from, under HAMi's labels: what a Python distribution does not know stays empty."""

import platform
from importlib.metadata import version

NAME, HELP = "hami_build_info", "What this build is"


def build_labels(distribution: str) -> dict[str, str]:
    """Return the labels of ``hami_build_info``."""
    return {
        "version": version(distribution),
        "revision": "",
        "build_date": "",
        "go_version": "",
        "compiler": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }
