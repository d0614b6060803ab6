"""Distributions other than the plain ones of the spaces."""
