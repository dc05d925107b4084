"""Our answers about Biren GPUs: none of HAMi's is a known weakness."""

from tests.compat.answers.answers import Answers

ANSWERS = Answers()
