"""What goes wrong for a person at the prompt: one sentence and an exit code."""

FAILED = 1
"""It could not be answered: nothing answers, or there is no such pod."""

MISUSED = 2
"""A flag, an argument or a variable cannot be used as it is written."""

INTERRUPTED = 130
"""Told to stop: Ctrl-C."""


class Problem(Exception):
    """One sentence that says what is wrong and the way out; ``code`` is the exit code."""

    def __init__(self, sentence: str, *, code: int = FAILED) -> None:
        super().__init__(sentence)
        self.code = code
