"""The data sets of the papers, with their published recipes and splits.

The files stay in a folder of the user, given as `--data-dir` or by the environment variable
`AFFLOW_DATA`. The error for a missing file says where to get the file.
"""

from datasets.binary import BINARY, binary
from datasets.bsds300 import bsds300
from datasets.digits import digits
from datasets.files import Split
from datasets.gas import gas
from datasets.hepmass import hepmass
from datasets.miniboone import miniboone, miniboone_small
from datasets.mnist import mnist, mnist_digits, mnist_logits
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
    "mnist_digits",
    "mnist_logits",
    "power",
    "rnade",
]
