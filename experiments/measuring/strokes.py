"""Attributes of written characters: the thickness and the slant of their strokes."""

import numpy as np

_EPSILON = 1e-9  # keeps empty images from a division by zero


def measure_thickness(images: np.ndarray) -> np.ndarray:
    r"""Return twice the area of the ink over the length of its edge, `(N,)` in pixels.

    A stroke of width $w$ and length $L$ has the area $w L$ and an edge of about $2 L$. The edge of
    an image of grey levels is its total variation, the sum of the gradient's norm over the pixels.

    Args:
        images: ink `(N, H, W)`, zero for paper; only the ratio of grey levels counts.
    """
    ink = np.pad(np.asarray(images, float), ((0, 0), (1, 1), (1, 1)))
    down, right = np.diff(ink, axis=1)[:, :, :-1], np.diff(ink, axis=2)[:, :-1]
    edge = np.hypot(down, right).sum((1, 2))
    return 2 * ink.sum((1, 2)) / np.maximum(edge, _EPSILON)


def measure_slant(images: np.ndarray) -> np.ndarray:
    r"""Return the angle of the strokes to the vertical, `(N,)` in degrees, positive to the right.

    The angle is $\arctan(-\mu_{ij} / \mu_{ii})$ with the second moments of the ink over rows $i$,
    counted downwards, and columns $j$. A shear by this angle makes the moment $\mu_{ij}$ zero.

    Args:
        images: ink `(N, H, W)`, zero for paper; only the ratio of grey levels counts.
    """
    ink = np.asarray(images, float)
    mass = np.maximum(ink.sum((1, 2)), _EPSILON)
    rows, columns = np.arange(ink.shape[1]), np.arange(ink.shape[2])
    i = rows - ((ink.sum(2) @ rows) / mass)[:, None]  # (N, H), around the centre
    j = columns - ((ink.sum(1) @ columns) / mass)[:, None]  # (N, W)
    mixed = np.einsum("nij,ni,nj->n", ink, i, j)
    square = np.einsum("nij,ni->n", ink, i**2)
    return np.degrees(np.arctan(-mixed / np.maximum(square, _EPSILON)))
