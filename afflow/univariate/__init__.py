"""Scalar maps whose context is their parameter vector."""

from afflow.univariate.additive import Additive
from afflow.univariate.affine import Affine
from afflow.univariate.spline import CircularSpline, RationalQuadraticSpline

__all__ = ["Additive", "Affine", "CircularSpline", "RationalQuadraticSpline"]
