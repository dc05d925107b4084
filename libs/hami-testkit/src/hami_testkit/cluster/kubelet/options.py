"""The times of the simulated kubelet, as measured on the real one, and the annotations that say how a pod runs."""

from msgspec import Struct

RUN_SECONDS = "standin.hami.io/run-seconds"
"""The pod's containers end after these seconds, whatever their command and the pod's restartPolicy."""
INIT_SECONDS = "standin.hami.io/init-seconds"
"""Each ordinary init container takes these seconds; without it, none."""
EXIT_CODE = "standin.hami.io/exit-code"
"""The exit code of containers that end by ``run-seconds``."""
STOP_SECONDS = "standin.hami.io/stop-seconds"
"""Containers take these seconds to stop once told to, and run on as long after a deletion without grace."""


class Options(Struct, frozen=True, kw_only=True):
    """What a test may want shorter, or otherwise, than a real kubelet has it. Seconds, if not said otherwise."""

    settle: float = 1.0
    """After a restart: until it looks at its pods and reports its node. Plugins back by then missed nothing."""
    linger: float = 1.5
    """How long PodResources lists a pod whose containers have just ended."""
    plugin_grace: float = 300.0
    """How long the capacity of a dead plugin is kept."""
    prestart_deadline: float = 30.0
    prestart_pauses: tuple[float, ...] = (0.8, 13.0, 30.0)
    """Before another PreStartContainer after one that failed; the last one repeats."""
    restart_pause: float = 10.0
    """Before a container that ended is started again; doubles up to 5 minutes."""
    rate: float = 100.0
    """PodResources calls a second."""
    burst: int = 10
    """PodResources calls at once."""
    seed: int = 0
    """Of the order in which IDs are taken where nobody has a preference: as good as random, and the same each time."""
