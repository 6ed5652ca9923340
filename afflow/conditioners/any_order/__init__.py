"""Networks that take the coordinates in any order."""
