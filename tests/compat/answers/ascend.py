"""Our answers about Ascend NPUs where HAMi's are known weaknesses."""

from tests.compat.answers.answers import Answers

_OF_B3 = "hami.io/Ascend910B3-devices-allocated"

ANSWERS = Answers(
    placed={
        "910 family: network score between nodes, spread": {
            _OF_B3: "".join(f"Ascend910B3-node-2-{at},Ascend910B3,65536,0:" for at in (3, 2, 1, 0)) + ";"
        },
        "910B4 requests see 910B4-1 cards": {"node-1": "NodeInsufficientDevice"},
    },
    placed_alike=frozenset(
        {
            "memoryFactor on trimmed memory",  # at admission, which these steps have behind them
            "910C: one card with a slice",
            "hard split does not count AI cores and AI CPUs",
        }
    ),
)
