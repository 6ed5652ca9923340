"""Scalar maps whose context is their parameter vector."""

from afflow.univariate.additive import Additive
from afflow.univariate.affine import Affine
from afflow.univariate.bernstein import BernsteinPolynomial
from afflow.univariate.heavy_tails import HeavyTails
from afflow.univariate.mixture_cdf import GaussianCDF, LaplaceCDF, LogisticCDF, MixtureCDF
from afflow.univariate.per_dimension import PerDimension
from afflow.univariate.polynomial_splines import CubicSpline, LinearSpline, QuadraticSpline
from afflow.univariate.sigmoidal import Sigmoidal
from afflow.univariate.sos import SumOfSquares
from afflow.univariate.spline import CircularSpline, RationalQuadraticSpline
from afflow.univariate.umnn import UMNN

__all__ = [
    "UMNN",
    "Additive",
    "Affine",
    "BernsteinPolynomial",
    "CircularSpline",
    "CubicSpline",
    "GaussianCDF",
    "HeavyTails",
    "LaplaceCDF",
    "LinearSpline",
    "LogisticCDF",
    "MixtureCDF",
    "PerDimension",
    "QuadraticSpline",
    "RationalQuadraticSpline",
    "Sigmoidal",
    "SumOfSquares",
]
