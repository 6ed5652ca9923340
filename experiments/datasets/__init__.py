"""The data sets of the papers, by their published recipes and splits.

The files stay where the user keeps them: a folder given as `--data-dir`, or in the environment
variable `AFFLOW_DATA`. A file that is missing is an error that says where to get it.
"""

from datasets.files import Split
from datasets.power import power

DENSITIES = {"power": power}

__all__ = ["DENSITIES", "Split", "power"]
