"""GAS: sensors in a varying mixture of ethylene and carbon monoxide."""

import numpy as np

from datasets.files import Folder, Split, checked, find, hold_out, standardized, uncorrelated

SIZES = 852_174, 94_685, 105_206
NAMES = ("gas/ethylene_CO.npy",)
SOURCE = (
    "https://zenodo.org/records/1161203 (gas/ethylene_CO.pickle, a table of pandas: save "
    "pandas.read_pickle(...).to_numpy() with numpy.save)"
)


def gas(folder: Folder = None, sizes: tuple[int, int, int] = SIZES) -> Split:
    """Return GAS as prepared by Papamakarios et al. 2017 (arXiv:1705.07057, appendix D).

    Time and both concentrations are dropped, and then one sensor of each correlated pair. The rows
    are z-scored by all rows and stay in the order of time.

    Args:
        folder: the data folder, see `find`.
        sizes: the number of rows expected in each part.

    Returns:
        Z-scores `(N, 8)`.
    """
    table = np.load(find(folder, NAMES, SOURCE)).astype(float)
    rows = uncorrelated(table[:, 3:])
    return checked("GAS", standardized(hold_out(rows), rows, ddof=1), sizes, 8)
