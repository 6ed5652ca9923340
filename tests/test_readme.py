"""The examples of the README run in order, without changes."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    scope: dict = {}
    for block in blocks:
        exec(block, scope)
    assert scope["log_prob"].shape == (1000,)
    shape = scope["conditional"].sample(scope["jax"].random.key(4), 2, scope["context"]).shape
    assert shape == (2, 5, 2)
    assert scope["draws"].shape == (2000, 3)
