"""Our answers about Cambricon MLUs where HAMi's are known weaknesses."""

from tests.compat.answers.answers import Answers

ANSWERS = Answers(
    placed={"capacity that is no multiple of 100 cores": {"node-1": "NodeInsufficientDevice"}},
    placed_alike=frozenset({"type annotations are not read"}),  # admission warns
)
