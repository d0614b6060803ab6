"""Kernels are pinned where the processor has them, and what is said of them is true."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench import kernels as module
from bench.kernels import PINS, kernels, pin

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
flags\t\t: fpu avx f16c fma bmi1 avx2 bmi2 avx512f

processor\t: 1
vendor_id\t: another
"""


REAL, PINNABLE = kernels(), module._pinnable()
"""Of this process."""


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that has loaded nothing yet, without pins, and a file that says what the processor
    has."""
    for name in (*PINS, "MKL_CBWR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "sys", SimpleNamespace(modules={}))
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    kernels.cache_clear()
    return tmp_path / "cpuinfo"


@pytest.fixture(autouse=True)
def capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def pinned() -> dict[str, str]:
    pin()
    return {name: value for name in PINS if (value := os.environ.get(name)) is not None}


def test_tests_have_the_kernels_of_the_benchmark() -> None:
    assert REAL.startswith("pinned to AVX2") or not PINNABLE


def test_kernels_are_those_that_any_such_machine_has() -> None:
    assert pinned() == PINS
    assert kernels() == "pinned to AVX2, GenuineIntel"


@pytest.mark.parametrize("flag", ["avx2", "fma"])
def test_what_the_processor_lacks_is_not_asked_for(bare: Path, flag: str) -> None:
    bare.write_text(CPUINFO.replace(f" {flag}", ""))
    assert pinned() == {}


def test_elsewhere_nothing_is_pinned(bare: Path) -> None:
    bare.unlink()
    assert pinned() == {}
    assert kernels().startswith("AVX2, ")


@pytest.mark.parametrize("library", ["torch", "numba"])
def test_pins_that_come_too_late_are_not_claimed(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.sys.modules, library, torch)
    assert pinned() == {}


def test_workers_have_the_pins_of_their_parent_whatever_they_load_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in PINS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(module.sys.modules, "torch", torch)
    pin()
    assert kernels() == "pinned to AVX2, GenuineIntel"


@pytest.mark.parametrize(("name", "value"), [*((n, "other") for n in PINS), ("MKL_CBWR", "AVX2")])
def test_what_the_user_sets_stays_and_is_told(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert pinned() == PINS | ({name: value} if name in PINS else {})
    assert kernels() == "AVX2, GenuineIntel, cpu family 6, model 85"


def test_other_kernels_than_the_pins_ask_for_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert pinned() == PINS
    assert kernels() == "DEFAULT, GenuineIntel, cpu family 6, model 85"
