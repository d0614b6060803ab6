#!/usr/bin/env python3
"""Compare gradient estimators for discrete latent variables: run `run_bench.py --help`."""

from bench.cli import main

if __name__ == "__main__":
    main()
