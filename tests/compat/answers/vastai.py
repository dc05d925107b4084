"""Our answers about Vastai accelerators: none of HAMi's recorded ones is a known weakness."""

from tests.compat.answers.answers import Answers

ANSWERS = Answers()
