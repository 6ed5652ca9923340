"""Timing functions, and results files with a record of their run."""
