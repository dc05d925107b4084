"""Our answers about Hygon DCUs where HAMi's are known weaknesses."""

from tests.compat.answers.answers import Answers

ANSWERS = Answers(
    placed={"positions: [none, dcu]": {"hami.io/dcu-devices-allocated": ";DCU-node-1-0,DCU,2000,60:;"}},
    denied={
        "memory 16Gi": (
            403,
            "hygon.com/dcumem 16Gi in container c0 is too much: hygon.com/dcumem counts MiB: write 16384",
        )
    },
)
