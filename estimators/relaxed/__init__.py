"""Estimators whose gradient goes through a relaxed z."""
