"""The harness: grids of cells, training, evaluation, storage and the command line."""

from bench.kernels import pin

pin()
