"""Simulators with known posteriors."""
