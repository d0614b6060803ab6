"""What is compiled before cells have their time."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.cells.cell import Planned
from bench.grid import grid, loops
from bench.grid.limits import Limits
from bench.grid.loops import compile_before
from bench.grid.runner import Execution
from bench.profiles.profile import Profile
from estimators.mappings.compiled import bits, chains, structures, trees
from tasks.likelihoods.compiled import pixels, pointwise
from tests.bench.conftest import cell_of

LOOPS = (
    *(pixels._fill, pointwise._forward, pointwise._backward, bits._solve, chains.best),
    *(structures._start, structures.advance, trees.best_trees, trees.partition, trees.passages),
)


def test_they_are_compiled_before_any_cell_where_time_is_limited(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr(loops, "sparsemap_bits", lambda _: events.append("compiled"))
    monkeypatch.setattr(loops, "structure", lambda _: None)
    monkeypatch.setattr(grid, "_run_all", lambda *_: events.append("ran"))
    execution = Execution(tmp_path, "tiny", None, "cpu", jobs=1, command="test")
    planned = [Planned(cell_of(profile, "bitvector", "sfe"), None)]
    grid.run_cells(planned, execution)
    assert events == ["ran"]
    grid.run_cells(planned, replace(execution, limits=Limits(seconds=9)))
    assert events[1:] == ["compiled", "ran"]


def test_cells_find_all_loops_compiled(profile: Profile, tmp_path: Path) -> None:
    """Of whatever types they call them with."""
    compile_before(Limits(seconds=1e6))
    before = [set(loop.signatures) for loop in LOOPS]
    assert all(before)
    execution = Execution(tmp_path, "tiny", None, "cpu", jobs=1, command="test")
    pairs = (
        *(("bitvector", "sparsemap"), ("bitvector", "sfe"), ("signal_game", "dense")),
        *(("subset_vae", "sparsemap"), ("listops", "sparsemap"), ("listops", "rloo")),
    )
    cells = [cell_of(profile, *pair) for pair in pairs]
    outcomes = grid.run_cells([Planned(cell, None) for cell in cells], execution)
    assert {outcome.status for outcome in outcomes} == {"ok"}
    assert [set(loop.signatures) for loop in LOOPS] == before
