"""Estimators that sample assignments and weight log-probabilities by their costs."""
