"""``hami-extender``: read the settings, run until told to stop."""

from hami_kit.runner import run

from hami_extender.bootstrap import serve
from hami_extender.settings import ExtenderSettings


def main() -> None:
    """Run the extender."""
    run(serve, ExtenderSettings)


if __name__ == "__main__":
    main()
