"""``hami-node-agent``: read the settings, run until told to stop."""

from hami_kit.runner import run

from hami_node_agent.bootstrap import serve
from hami_node_agent.settings import Settings


def main() -> None:
    """Run the node agent."""
    run(serve, Settings)


if __name__ == "__main__":
    main()
