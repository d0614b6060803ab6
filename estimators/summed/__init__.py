"""Exact sums over the support of a distribution, all of it or sparse."""
