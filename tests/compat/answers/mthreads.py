"""Our answers about Moore Threads GPUs where HAMi's are known weaknesses."""

from tests.compat.answers.answers import Answers

CORE, MEMORY = "mthreads.com~1sgpu-core", "mthreads.com~1sgpu-memory"


def _whole(limits: tuple[str, str], **named: str) -> dict[str, str]:
    resources = "/spec/containers/0/resources/"
    written = dict(zip((f"{resources}limits/{CORE}", f"{resources}limits/{MEMORY}"), limits, strict=True))
    return {**written, **{f"{resources}requests/mthreads.com~1sgpu-{name}": value for name, value in named.items()}}


ANSWERS = Answers(
    # The plugin reads one list of cards for the whole pod, so a second card would be given to nobody, or to both.
    placed_alike=frozenset({"two containers that need two cards"}),
    admitted={
        "one with cores": {**_whole(("16", "96"), core="16"), "/spec/schedulerName": "hami-scheduler"},
        "two with memory": {
            **_whole(("32", "192"), memory="192"),
            "/metadata/annotations/mthreads.com~1request-gpu-num": "2",
            "/spec/schedulerName": "hami-scheduler",
        },
    },
)
