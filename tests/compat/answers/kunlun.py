"""Our answers about Kunlun XPUs where HAMi's are known weaknesses: a card's number says its wing, not its place."""

from tests.compat.answers.answers import Answers


def _whole(*cards: int) -> dict[str, str]:
    return {"hami.io/kunlun-allocated": "".join(f"node-1-kunlun-{card},kunlun,98304,100:" for card in cards) + ";"}


ANSWERS = Answers(
    placed={
        "whole: cards 5 busy": _whole(4),
        "whole: cards 0,4,5 busy": _whole(6, 7),
        "whole: cards 2,3,7 busy": _whole(4),
        "whole: cards 3,6 busy": _whole(0, 1, 4, 5),
        "whole: cards 0,4 busy": _whole(2, 3, 6, 7),
        "random 9": _whole(0, 1, 2, 3),
    },
    placed_alike=frozenset({"vXPU: memory 24Gi"}),  # at admission, which these steps have behind them
    admitted={
        "vXPU memory above the card": {  # cut as there, with a warning
            "/spec/containers/0/resources/limits/kunlunxin.com~1vxpu-memory": "98304",
            "/spec/containers/0/resources/requests/kunlunxin.com~1vxpu-memory": "98304",
            "/spec/schedulerName": "hami-scheduler",
        },
    },
    denied={
        "vXPU memory 24Gi": (
            403,
            "kunlunxin.com/vxpu-memory 24Gi in container c0 is too much: kunlunxin.com/vxpu-memory counts MiB: "
            "write 24576",
        ),
    },
)
