"""Univariates: invertible maps of one number, with a parameter vector as context."""

from afflow.core.univariate import Univariate
from afflow.univariates.additive import Additive
from afflow.univariates.affine import Affine
from afflow.univariates.bernstein import BernsteinPolynomial
from afflow.univariates.heavy_tails import HeavyTails
from afflow.univariates.mixture_cdf import GaussianCDF, LaplaceCDF, LogisticCDF, MixtureCDF
from afflow.univariates.per_dimension import PerDimension
from afflow.univariates.polynomial_splines import CubicSpline, LinearSpline, QuadraticSpline
from afflow.univariates.sigmoidal import Sigmoidal
from afflow.univariates.sos import SumOfSquares
from afflow.univariates.spline import CircularSpline, RationalQuadraticSpline
from afflow.univariates.umnn import UMNN

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
    "Univariate",
]
