"""What the compiled loops share: the exponential, and what is done without numba."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from estimators.mappings.kept import cache_of
from tasks.likelihoods import compiled
from tasks.likelihoods.compiled import pixels
from tasks.likelihoods.compiled import pointwise as pointwise_loops
from tasks.likelihoods.compiled.exponential import CONSTANTS, exponentials
from tasks.likelihoods.pixels import pixel_nll, plain_pixel_nll
from tasks.likelihoods.pointwise import plain_pointwise, pointwise


@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 2.5e-7), (np.float64, 1e-13)])
def test_exponentials_and_their_sum(dtype: type, close: float) -> None:
    constants = CONSTANTS[np.dtype(dtype).name]
    bits = np.empty(100_003, f"i{np.dtype(dtype).itemsize}")
    largest = float(constants[0].largest)
    for low, high in ((-largest, largest), (-1, 0), (-largest, 0)):
        x, less = np.linspace(low, high, len(bits)).astype(dtype), dtype(high / 3)
        wanted = np.exp((x - less).clip(-largest, largest).astype(np.longdouble))
        total = exponentials(x, less, *constants, bits)
        np.testing.assert_allclose(x.astype(np.longdouble), wanted, rtol=close)
        assert high > 0 or total == pytest.approx(float(wanted.sum()), rel=1e-6)


def test_exponentials_beyond_the_largest_stay_numbers_and_others_none() -> None:
    x = np.array([-np.inf, -1e30, 1e30, np.inf, np.nan], np.float32)
    exponentials(x, np.float32(0), *CONSTANTS["float32"], np.empty(5, np.int32))
    assert (x[:2] <= np.float32(2e-38)).all()
    assert (x[:2] >= 0).all()
    assert (x[2:4] > 1e37).all()
    assert np.isnan(x[4])


@pytest.mark.parametrize("name", ["exponential", "loops", "pixels", "pointwise"])
def test_compiled_loops_are_kept_elsewhere_once_any_file_has_changed(
    name: str, tmp_path: Path
) -> None:
    """As a loop holds what it calls in other files, which numba does not look at."""
    folder = Path(compiled.__file__).parent
    kept = compiled.cache_of_loops()
    assert kept is not None
    for loop in (exponentials, pixels._fill, pixels._slopes, pointwise_loops._backward):
        assert Path(loop.stats.cache_path).is_relative_to(kept)
    copied = Path(shutil.copytree(folder, tmp_path / "compiled"))
    unchanged = cache_of(copied.glob("*.py"))
    assert unchanged is not None
    assert unchanged.name == kept.name
    with (copied / f"{name}.py").open("a") as file:
        file.write("# changed\n")
    changed = cache_of(copied.glob("*.py"))
    assert changed is not None
    assert changed.name != kept.name


FIRST = """
import torch
from tasks.likelihoods.pixels import pixel_nll
torch.set_num_threads(1)
pixel_nll(torch.randn(2, 4, 3), torch.randn(5, 3), torch.randn(5), torch.zeros(2, 4).long())
print(torch.__config__.parallel_info())
"""


def test_the_first_loop_of_a_process_leaves_the_threads_of_torch() -> None:
    """numba's pool has OpenMP take all cores when it begins."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"},
    )  # fmt: skip
    counts = re.findall(r"(at::get_num|omp_get_max|mkl_get_max)_threads\(\) : (\d+)", done.stdout)
    assert {count for _, count in counts} == {"1"}


def test_without_numba_both_run_and_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pixels", "pointwise"):
        monkeypatch.setitem(sys.modules, f"tasks.likelihoods.compiled.{name}", None)
    compiled._imported.cache_clear()
    features, weight, bias = torch.randn(2, 3, 5), torch.randn(7, 5), torch.randn(7)
    target = torch.randint(7, (2, 3))
    with pytest.warns(UserWarning, match="numba is not installed: what .*compiled.pixels"):
        value = pixel_nll(features, weight, bias, target)
    torch.testing.assert_close(value, plain_pixel_nll(features, weight, bias, target))
    x, w, v = torch.randn(3, 4), torch.randn(5), torch.randn(5)
    with pytest.warns(UserWarning, match="numba is not installed: what .*compiled.pointwise"):
        value = pointwise(x, w, v)
    torch.testing.assert_close(value, plain_pointwise(x, w, v))
    compiled._imported.cache_clear()
