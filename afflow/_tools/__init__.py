"""Shapes, arguments, arrays, names and lowering: what every part needs and no user sees."""
