#!/usr/bin/env python3
"""Compare gradient estimators for discrete latent variables: run `run_bench.py --help`."""

import sys

if __name__ == "__main__":
    try:
        from bench.cli.app import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()
