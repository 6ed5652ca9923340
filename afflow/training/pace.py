"""The number of training steps between two updates of the progress bar."""

import jax

# A call allocates its temporaries anew, which takes up to a third of a second for large networks.
_SECONDS = 3.0


class Pace:
    """A choice of the number of steps to take at a time, which last about three seconds.

    The program of the steps takes any number of them, and the results do not depend on it. Several
    processes take all steps at once, because each must start the same programs.
    """

    def __init__(self):
        self.steps = 1 if jax.process_count() == 1 else None
        self.is_compiled = False

    def choose(self, left: int) -> int:
        """Return the number of steps to take next, at most `left`."""
        return left if self.steps is None else min(self.steps, left)

    def learn(self, steps: int, seconds: float) -> None:
        """Note that `steps` steps took so many seconds. The first of all calls compiles."""
        if self.steps is not None and self.is_compiled:
            self.steps = max(1, int(_SECONDS * steps / max(seconds, 1e-9)))
        self.is_compiled = True
