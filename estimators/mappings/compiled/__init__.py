"""Loops that numba compiles, a row at a time, for the CPU."""
