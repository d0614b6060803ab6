"""Profiles: how long, how large and with which settings to run."""
