"""The cells of the tables that `accelerator.py` measures, in order of importance.

A variant is the name of a library or of one of its solvers. If a precision of matrix products is
set, it follows after `@`, as in `"afflow in jit @ highest"`.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

from peers import Sizes

SEED = 0
TF32, THREE_TF32 = " @ default", " @ TF32_TF32_F32_X3"
OWN = ("afflow", "afflow in jit", "afflow in jit" + TF32, "afflow in jit" + THREE_TF32)
BY_HAND = ("by hand unrolled @ highest", "by hand unrolled" + TF32)
PEERS = ("flowjax", "zuko")
SOLVERS = ("afflow", "afflow XLA steps", "afflow Jacobi")
STEPS = ("afflow", "afflow" + TF32, "afflow" + THREE_TF32)
Part = list[tuple[str, str, tuple[str, ...]]]
PARTS: dict[str, Part] = {  # calls, families and variants
    "density": [("density", "maf", (*OWN, *BY_HAND, *PEERS))],
    "main densities": [("density", "maf", (*OWN[:2], BY_HAND[0], *PEERS))],
    "sampling": [
        ("sample", "maf", (*SOLVERS, *PEERS)),
        ("sample_and_log_prob", "maf", ("afflow",)),
    ],
    "main solvers": [("sample", "maf", (*SOLVERS[:2], *PEERS))],
    "training": [("train", "maf", (*STEPS, *PEERS))],
    "main training": [("train", "maf", ("afflow", *PEERS))],
    "fit": [("fit", "maf", ("afflow",))],
    "gradient": [("gradient", "maf", ("afflow",))],
    "accuracy": [("accuracy", "maf", STEPS)],
    "trained": [
        ("training", "trained maf", STEPS[:2]),
        ("sample", "trained maf", SOLVERS),
        ("accuracy", "trained maf", STEPS),
    ],
    "trained sampling": [("sample", "trained maf", SOLVERS)],
    "nsf": [
        ("density", "nsf", ("afflow",)),
        ("sample", "nsf", SOLVERS[:2]),
        ("train", "nsf", ("afflow",)),
    ],
    "iaf": [("density", "iaf", ("afflow",)), ("sample", "iaf", ("afflow",))],
}
MAIN = ("density", "sampling", "training", "fit", "gradient", "accuracy")
USUAL = ("main densities", "main solvers", "main training")


class Scale(NamedTuple):
    """Sizes of a flow."""

    dim: int
    num_layers: int
    width: int


class Block(NamedTuple):
    """The parts to measure at one size, in this order."""

    scale: Scale
    batch: int
    parts: tuple[str, ...]


MIDDLE, LARGE, LOW = Scale(43, 5, 512), Scale(784, 5, 1024), Scale(6, 5, 100)
BLOCKS = [
    Block(MIDDLE, 1000, MAIN),
    Block(LARGE, 100, ("density", "sampling", "training", "accuracy")),
    Block(MIDDLE, 100_000, ("density", "main solvers", "training")),
    Block(MIDDLE, 1000, ("nsf", "iaf", "trained")),
    Block(MIDDLE, 10_000, USUAL),
    Block(LOW, 1000, (*USUAL, "fit")),
    Block(MIDDLE, 20_000, ("trained sampling",)),
    Block(MIDDLE, 100, USUAL),
    Block(LARGE, 1000, USUAL),
    Block(MIDDLE, 100_000, ("nsf",)),
    Block(LOW, 100_000, USUAL),
    *(Block(Scale(dim, 5, 512), 1000, USUAL) for dim in (2, 16, 64, 256)),
]
TINY = Scale(6, 3, 32)
SMALL_BLOCKS = [
    Block(TINY, 16, (*MAIN, "trained", "nsf", "iaf")),
    Block(TINY, 32, ("main solvers",)),
    Block(Scale(2, 3, 32), 16, USUAL),
]


class Cell(NamedTuple):
    """One entry of the tables."""

    what: str
    """A key of `CALLS` or `accuracy`."""
    family: str
    """A key of `FACTORIES`, with the prefix `"trained "` for trained weights."""
    variant: str
    dim: int
    batch: int
    num_layers: int
    width: int

    def __str__(self) -> str:
        size = f"D={self.dim}, batch {self.batch}, {self.num_layers}x2x{self.width}"
        return f"{self.what}: {self.family} {size}: {self.variant}"

    @property
    def library(self) -> str:
        """The variant without its precision."""
        return self.variant.partition(" @ ")[0]

    @property
    def precision(self) -> str | None:
        """The precision of matrix products, if one is set."""
        return self.variant.partition(" @ ")[2] or None

    @property
    def sizes(self) -> Sizes:
        """The sizes of the flow. They are equal for all batch sizes, so the flow is built once."""
        return Sizes(self.dim, self.num_layers, self.width, batch=0, seed=SEED)


def is_installed(variant: str) -> bool:
    """Return whether the library of a variant can be imported; afflow and plain JAX always can."""
    return all(find_spec(name) for name in ("flowjax", "zuko") if variant.startswith(name))


def planned(blocks: list[Block]) -> Iterator[Cell]:
    """Yield the cells of the installed libraries in order of importance."""
    for scale, batch, parts in blocks:
        for what, family, variants in (row for part in parts for row in PARTS[part]):
            for variant in filter(is_installed, variants):
                yield Cell(what, family, variant, scale.dim, batch, scale.num_layers, scale.width)
