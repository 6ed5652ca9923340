"""The data sets of the papers, by their published recipes and splits.

The files stay where the user keeps them: a folder given as `--data-dir`, or in the environment
variable `AFFLOW_DATA`. A file that is missing is an error that says where to get it.
"""

from datasets.binary import BINARY, binary
from datasets.bsds300 import bsds300
from datasets.digits import digits
from datasets.files import Split
from datasets.gas import gas
from datasets.hepmass import hepmass
from datasets.miniboone import miniboone, miniboone_small
from datasets.mnist import mnist, mnist_logits
from datasets.power import power
from datasets.rnade import RNADE, fold, rnade

DENSITIES = {
    "power": power,
    "gas": gas,
    "hepmass": hepmass,
    "miniboone": miniboone,
    "miniboone_small": miniboone_small,
    "bsds300": bsds300,
    "mnist": mnist_logits,
    "digits": digits,
}

__all__ = [
    "BINARY",
    "DENSITIES",
    "RNADE",
    "Split",
    "binary",
    "bsds300",
    "digits",
    "fold",
    "gas",
    "hepmass",
    "miniboone",
    "miniboone_small",
    "mnist",
    "mnist_logits",
    "power",
    "rnade",
]
