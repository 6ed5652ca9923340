"""Draw the pictures of the guide's page of plots, by the code of the page.

    python experiments/guide_pictures.py --help

Writes a picture for each figure of the page, named as the figure, and a file of the versions. Takes
a minute on two CPU cores.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure
from measuring.report import save

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Config:
    """The page, the folder of the pictures, and their resolution."""

    page: Path = ROOT / "notebooks" / "plots.md"
    out: Path = ROOT / "experiments" / "results" / "plots"
    dpi: int = 110


def find_figures(page: str) -> dict[str, Figure]:
    """Run the Python blocks of a page, and return the figures that they name."""
    scope: dict = {"__name__": "__main__"}
    for code in _BLOCK.findall(page):
        exec(code, scope)
    return {name: value for name, value in scope.items() if isinstance(value, Figure)}


def main(config: Config) -> None:
    """Draw the figures and save them."""
    start = time.perf_counter()
    figures = find_figures(config.page.read_text())
    config.out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(config.out / f"{name}.png", dpi=config.dpi)
    results = {"figures": sorted(figures), "seconds": time.perf_counter() - start}
    save(config.out / "plots.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
