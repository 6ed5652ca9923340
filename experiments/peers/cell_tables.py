"""Tables, ratios and a picture of the cells that `accelerator.py` measures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Cells = dict[str, dict[str, Any]]
CALLS = {
    "density": "Scoring a batch",
    "sample": "Sampling a batch",
    "sample_and_log_prob": "Sampling a batch with log-densities",
    "train": "A training step",
    "fit": "A step of fit",
    "gradient": "A gradient through samples",
}
IN_JIT, BY_HAND = "afflow in jit", "by hand unrolled"
RATIOS = {  # call and variant of the numerator, then call and variant of the denominator
    f"density, {own} / by hand, {name}": (("density", own + suffix), ("density", BY_HAND + hand))
    for own, name, suffix, hand in (
        ("afflow", "float32", "", " @ highest"),
        (IN_JIT, "float32", "", " @ highest"),
        (IN_JIT, "TF32", " @ default", " @ default"),
    )
}
RATIOS |= {
    f"{call}, {peer} / afflow": ((call, peer), (call, "afflow"))
    for peer in ("flowjax", "zuko")
    for call in ("density", "sample", "train")
}
RATIOS["density, flowjax / afflow in jit, TF32"] = (
    ("density", "flowjax"),
    ("density", f"{IN_JIT} @ default"),
)
RATIOS["train, flowjax / afflow, TF32"] = (("train", "flowjax"), ("train", "afflow @ default"))
RATIOS["sample, XLA steps / kernel"] = (("sample", "afflow XLA steps"), ("sample", "afflow"))
RATIOS["fit / training step"] = (("fit", "afflow"), ("train", "afflow"))
ERRORS = ("log_prob_error", "log_prob_bias", "z_error", "log_det_error")
COLORS = {
    "afflow": "k",
    "afflow in jit": "tab:gray",
    "afflow XLA steps": "tab:red",
    "afflow Jacobi": "tab:purple",
    "by hand unrolled": "tab:blue",
    "flowjax": "tab:orange",
    "zuko": "tab:green",
}
STYLES = {"": "o-", "highest": "s--", "default": "^:", "TF32_TF32_F32_X3": "d-."}


def timed(cells: Cells, what: str) -> list[dict[str, Any]]:
    """Return the cells of one call that did not fail."""
    return [cell for cell in cells.values() if cell["what"] == what and "failed" not in cell]


def size_of(cell: dict[str, Any]) -> tuple[str, int, int]:
    """Return the family, dimension and batch of a cell, which name its row in a table."""
    return cell["family"], cell["dim"], cell["batch"]


def ratios(cells: Cells) -> dict[str, dict[str, dict[str, float]]]:
    """Return each of `RATIOS` at each size, for single calls and for calls in a queue."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name, (above, below) in RATIOS.items():
        top, bottom = (
            {size_of(cell): cell for cell in timed(cells, what) if cell["variant"] == variant}
            for what, variant in (above, below)
        )
        result[name] = {
            f"{size[0]} D={size[1]}, batch {size[2]}": {
                "one_call": top[size]["median_ms"] / bottom[size]["median_ms"],
                "queued": top[size]["queued_ms"] / bottom[size]["queued_ms"],
            }
            for size in top
            if size in bottom
        }
    return result


def print_tables(content: dict[str, Any]) -> None:
    """Print the times, first calls, errors, ratios and failures."""
    cells = content["cells"]
    for what, title in CALLS.items():
        rows = timed(cells, what)
        print_table(f"{title}, ms of one call / in a queue", rows, _both_times)
        print_table(f"{title}, first call, s", rows, lambda cell: f"{cell['first_call_s']:.1f}")
    for error in ERRORS:
        rows = [cell for cell in timed(cells, "accuracy") if error in cell]
        print_table(f"Largest {error}", rows, lambda cell, error=error: f"{cell[error]:.1e}")
    for cell in timed(cells, "training"):
        print(f"\nTrained: {cell}")
    print("\nRatios of one call / in a queue")
    for name, sizes in content["ratios"].items():
        for size, ratio in sizes.items():
            print(f"{name:45}{size:35}{ratio['one_call']:8.2f} / {ratio['queued']:.2f}")
    print(f"\nFailed: {[key for key, cell in cells.items() if 'failed' in cell]}")
    print(f"Not finite: {[key for key, cell in cells.items() if not cell.get('finite', True)]}")
    print(f"Left out for want of time: {len(content['left_out'])} cells")


def _both_times(cell: dict[str, Any]) -> str:
    return f"{_short(cell['median_ms'])} / {_short(cell['queued_ms'])}"


def _short(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"


def print_table(title: str, rows: list[dict[str, Any]], show: Any) -> None:
    """Print a line for each size and a column for each variant; the header has two lines."""
    variants = list(dict.fromkeys(cell["variant"] for cell in rows))
    if not variants:
        return
    names = [variant.partition(" @ ")[::2] for variant in variants]
    print(f"\n{title}")
    for part in (0, 1):
        print(_line("family D x batch" if part else "", (name[part] for name in names)))
    for size in sorted({size_of(cell) for cell in rows}):
        found = {cell["variant"]: show(cell) for cell in rows if size_of(cell) == size}
        first = f"{size[0]} {size[1]} x {size[2]}"
        print(_line(first, (found.get(variant, "-") for variant in variants)))


def _line(first: str, entries: Iterable[str]) -> str:
    return f"{first:26}" + "".join(f"{entry:>20}" for entry in entries)


def draw(cells: Cells, dim: int, device: str, path: Path) -> None:
    """Plot the time of one call against the batch size for the masked autoregressive flow."""
    panels = ("density", "sample", "train")
    figure, axes = plt.subplots(1, 3, figsize=(15, 6.5), layout="constrained")
    for axis, what in zip(axes, panels, strict=True):
        rows = [cell for cell in timed(cells, what) if size_of(cell)[:2] == ("maf", dim)]
        for variant in dict.fromkeys(cell["variant"] for cell in rows):
            own = sorted((cell for cell in rows if cell["variant"] == variant), key=size_of)
            _draw_variant(axis, variant, own)
        axis.set(xscale="log", yscale="log", xlabel="batch", title=CALLS[what])
        axis.grid(alpha=0.3)
        if rows:
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize=9)
    axes[0].set_ylabel("milliseconds of one call, median and quartiles")
    figure.suptitle(f"Masked autoregressive flow, $D={dim}$, on one {device}")
    figure.savefig(path, dpi=150)


def _draw_variant(axis: Axes, variant: str, cells: list[dict[str, Any]]) -> None:
    """Plot the medians of one variant with shaded quartiles."""
    library, _, precision = variant.partition(" @ ")
    batches, color = [cell["batch"] for cell in cells], COLORS[library]
    keys = "q25_ms", "median_ms", "q75_ms"
    low, middle, high = ([cell[key] for cell in cells] for key in keys)
    axis.plot(batches, middle, STYLES[precision], ms=5, color=color, label=variant)
    axis.fill_between(batches, low, high, color=color, alpha=0.15, lw=0)
