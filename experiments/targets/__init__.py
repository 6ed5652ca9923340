"""Densities that are known exactly, with samples."""
