"""Tasks: models with one discrete latent variable, on real data."""
