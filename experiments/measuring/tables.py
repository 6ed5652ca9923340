"""Tables of a page between markers, and the means and costs in their cells."""

import re
from collections.abc import Sequence

import numpy as np


def with_table(text: str, rows: str, begin: str, end: str) -> str:
    """Return the text with `rows` between the markers."""
    head, rest = text.split(begin)
    return head + begin + rows + end + rest.split(end)[1]


def core_hours(content: dict) -> str:
    """Return the cost of the run in a results file, or an empty string if it is not known.

    The cost is the CPU time in hours of one core, to two digits. For older files it is the wall
    time times the number of cores of the machine.

    Args:
        content: a results file. The cost is known if the machine is a CPU, and the results have
            `core_seconds` or `seconds`.
    """
    results = content["results"]
    cores = re.match(r"(\d+)-core", content.get("environment", {}).get("machine", ""))
    if cores is None or not results.keys() & {"core_seconds", "seconds"}:
        return ""
    hours = results.get("core_seconds", results.get("seconds", 0) * int(cores[1])) / 3600
    return f"{float(f'{hours:.2g}'):g} h"


def format_mean(values: Sequence[float]) -> str:
    """Return a mean ± its standard error, one number without an error, or an empty string."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.2f}"
