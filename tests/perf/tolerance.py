"""What a tolerance of the active-set method costs: draws docs/images/tolerance.png.

Run as `python -m tests.perf.tolerance`. For random scores from N(0.2, 1): vertices (decoder
calls), and the share of the rank of the Jacobian that the gradient keeps, against the tolerance.
"""

import torch
from matplotlib.figure import Figure

from analysis.style import own_style
from estimators.mappings import sparsemap_bits

TOLERANCES = [10.0**-power for power in range(1, 13)]
ROWS = 64


def measure(size: int, tolerance: float) -> tuple[float, float]:
    """Mean number of vertices, and mean of (vertices − 1) / (fractional marginals)."""
    generator = torch.Generator().manual_seed(0)
    scores = 0.2 + torch.randn(ROWS, size, generator=generator, dtype=torch.float64)
    solution = sparsemap_bits(scores, tolerance=tolerance)
    vertices = (solution.probabilities > 0).sum(dim=1).double()
    fractional = ((solution.marginals > 0) & (solution.marginals < 1)).sum(dim=1)
    return float(vertices.mean()), float(((vertices - 1) / fractional).mean())


def main() -> None:
    with own_style():
        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for size, marker in ((32, "o"), (128, "s"), (512, "^")):
            vertices, ranks = zip(*(measure(size, t) for t in TOLERANCES), strict=True)
            left.plot(TOLERANCES, vertices, marker=marker, markersize=3, label=f"D = {size}")
            right.plot(TOLERANCES, ranks, marker=marker, markersize=3)
            print(size, [round(v, 1) for v in vertices], [round(r, 2) for r in ranks])
        left.set(xscale="log", xlabel="tolerance", ylabel="vertices of a row")
        right.set(xscale="log", xlabel="tolerance", ylabel="rank of the Jacobian / full rank")
        left.invert_xaxis()
        right.invert_xaxis()
        left.legend()
        figure.savefig("docs/images/tolerance.png")


if __name__ == "__main__":
    main()
