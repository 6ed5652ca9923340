"""The data sets of the papers, by their published recipes and splits.

The files stay where the user keeps them: a folder given as `--data-dir`, or in the environment
variable `AFFLOW_DATA`. A file that is missing is an error that says where to get it.
"""

from datasets.binary import BINARY, binary
from datasets.files import Split
from datasets.power import power
from datasets.rnade import RNADE, fold, rnade

DENSITIES = {"power": power}

__all__ = ["BINARY", "DENSITIES", "RNADE", "Split", "binary", "fold", "power", "rnade"]
