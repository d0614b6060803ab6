"""Gradient estimators for models with discrete latent variables."""
