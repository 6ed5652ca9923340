"""Scalar maps whose context is their parameter vector."""

from afflow.univariate.affine import Affine

__all__ = ["Affine"]
