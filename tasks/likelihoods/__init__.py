"""Likelihoods of pixels and the like, with gradients of their own."""
