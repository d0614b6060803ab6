"""Bias, variance and cost of gradient estimates."""
