"""The examples of the README and of the guide run as they stand, one after the other."""

import contextlib
import inspect
import io
import re
from pathlib import Path

import jax
import pytest

import afflow

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "notebooks").glob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


@pytest.fixture
def _defaults():
    """Use JAX's default float type and promotion of ranks, as readers do."""
    jax.config.update("jax_enable_x64", False)
    with jax.numpy_rank_promotion("allow"):  # distrax promotes ranks
        yield
    jax.config.update("jax_enable_x64", True)


def run(text: str) -> dict:
    """Run the Python blocks of a page in one scope; return the scope.

    A block of text after a Python block holds what the Python block prints.
    """
    scope: dict = {"__name__": "__main__"}
    for code, expected in _BLOCK.findall(text):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, scope)
        assert not expected or out.getvalue().split() == expected.split()
    return scope


@pytest.mark.usefixtures("_defaults")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page):
    scope = run(page.read_text())
    if page == README:
        assert scope["log_prob"].shape == (1000,)
        shape = scope["conditional"].sample(scope["jax"].random.key(4), 2, scope["context"]).shape
        assert shape == (2, 5, 2)


def test_printed_text_is_compared():
    run("```python\nprint('a  b')\n```\n\n```text\na\nb\n```\n")
    with pytest.raises(AssertionError):
        run("```python\nprint('a')\n```\n\n```text\nb\n```\n")


def test_every_package_has_a_page_of_reference():
    packages = [name for name in afflow.__all__ if inspect.ismodule(getattr(afflow, name))]
    assert packages
    for name in packages:
        page = ROOT / "notebooks" / "reference" / f"{name}.md"
        assert f"\n::: afflow.{name}\n" in page.read_text()
