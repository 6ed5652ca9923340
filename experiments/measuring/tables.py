"""Tables of a page between markers, and the cost of a run in a cell."""

import re


def with_table(text: str, rows: str, begin: str, end: str) -> str:
    """Return the text with `rows` between the markers."""
    head, rest = text.split(begin)
    return head + begin + rows + end + rest.split(end)[1]


def core_hours(content: dict) -> str:
    """Return the cost of the run in a results file, or an empty string if it is not known.

    The cost is the wall time times the number of cores of the machine, in hours, to two digits.

    Args:
        content: a results file. The cost is known if the results have `seconds` and the machine
            is a CPU.
    """
    seconds = content["results"].get("seconds")
    cores = re.match(r"(\d+)-core", content.get("environment", {}).get("machine", ""))
    if seconds is None or cores is None:
        return ""
    return f"{float(f'{seconds * int(cores[1]) / 3600:.2g}'):g} h"
