"""docs/LIBRARY.md: each model there is run as it is written, and learns."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from estimators import all_estimators

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(
    r"## (.*?)\n\n```python\n(.*?)```", (ROOT / "docs" / "LIBRARY.md").read_text(), re.DOTALL
)


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Eight patterns of 784 pixels with some noise, and the number of each."""
    generator = torch.Generator().manual_seed(0)
    patterns = (torch.rand(8, 784, generator=generator) < 0.5).float()
    found = []
    for _ in range(count):
        y = torch.randint(8, (32,), generator=generator)
        flipped = torch.rand(32, 784, generator=generator) < 0.02
        found.append(((patterns[y] - flipped.float()).abs(), y))
    return found


def run_example(code: str, steps: int) -> tuple[Any, float, float]:
    """The model of an example after some steps, and its loss before and after these."""
    labelled = batches(steps)
    names: dict[str, Any] = {"batches": [x for x, _ in labelled], "labelled_batches": labelled}
    torch.manual_seed(0)
    before, _, loop = code.partition("for x")
    exec(before, names)
    model = names["model"]
    given = labelled[0] if "y in labelled" in code else labelled[0][:1]
    first = float(model.loss(*given).detach())
    exec("for x" + loop, names)
    return model, first, float(model.loss(*given).detach())


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_an_example_runs_and_learns(title: str, code: str) -> None:
    assert sum(line != "" for line in code.splitlines()) < 30
    model, first, last = run_example(code, steps=40)
    assert last < 0.9 * first
    if hasattr(model, "predict"):
        x, y = batches(1)[0]
        assert (model.predict(x) == y).float().mean() > 0.9


def test_the_relaxed_model_can_be_trained_by_any_estimator() -> None:
    (code,) = (code for title, code in EXAMPLES if "categories" in title)
    names: dict[str, Any] = {"batches": []}
    exec(code, names)
    x = batches(1)[0][0]
    taken = 0
    for name in all_estimators():
        try:
            model = names["CategoricalVAE"](name)
        except ValueError:  # it sums over everything, takes bits alone, or has a network of x
            continue
        model.loss(x).backward()
        assert next(model.encoder.parameters()).grad is not None
        taken += 1
    assert taken >= 8


def test_importing_it_loads_nothing_of_the_benchmark() -> None:
    code = (
        "import sys; from estimators import make, Bits; make('rloo', Bits(3)); "
        "print([m for m in ('pandas', 'optuna', 'cyclopts', 'matplotlib', 'rich', 'bench', "
        "'tasks', 'analysis', 'numba', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
