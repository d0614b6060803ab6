"""Estimators through a mixed variable: continuous, with atoms at the assignments."""
