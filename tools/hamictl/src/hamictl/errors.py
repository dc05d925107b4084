"""What goes wrong for a person at the prompt: one sentence and an exit code."""


class Problem(Exception):
    """One sentence that says what is wrong and the way out; ``code`` is the exit code."""

    def __init__(self, sentence: str, *, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code
