"""Distributions over discrete latent variables."""
