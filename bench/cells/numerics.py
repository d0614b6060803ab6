"""The version of the numerics, on its own so that reading it imports nothing."""

NUMERICS = 10
"""Version of everything that determines a cell's numbers; see docs/NUMERICS.md when raising it."""
