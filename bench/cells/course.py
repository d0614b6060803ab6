"""The course of a cell: train, evaluate on a schedule, keep the best, and go on after a stop."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from analysis.scores import LESS_IS_BETTER
from bench.cells.cell import Cell
from bench.cells.provenance import code_of
from bench.cells.tensors import load, save
from bench.cells.training import REPORT_EVERY, DivergedError, Row, Trainer
from bench.cells.warm_start import warm_start
from bench.kernels import kernels

WARM_UP_STEPS = 3
"""Steps of a throw-away copy before the clock starts: first calls allocate and compile."""

SAVE_SECONDS = 60.0
"""How often a cell in training is saved."""

THEN = ", then "
"""Between the kernels of a cell that went on where it found others."""

COUNTED = ("decoder_calls", "slopes", "oracle_calls")
"""What training costs an example: columns that have a running total each, as `slopes_total`."""


class Course:
    """A training and what it has shown so far: its rows, and the parameters that did best."""

    def __init__(self, trainer: Trainer, file: Path | None) -> None:
        self.trainer = trainer
        self.file = file
        self.rows: list[Row] = []
        self.best: Row | None = None
        self.best_parameters = trainer.parameters.clone()
        self._waited = 0
        self._saved = time.monotonic()
        self._code = code_of(type(trainer.task), type(trainer.estimator), type(trainer.task.space))
        self._kernels = kernels()
        saved = None if file is None else load(file, trainer.streams.device)
        if saved is not None and saved.get("code") == self._code:  # else half would be of each
            self._restore(saved)

    @property
    def over(self) -> bool:
        """Whether all steps are done, or the patience with them is at its end."""
        patience = self.trainer.settings.patience
        tired = patience is not None and self._waited >= patience
        return tired or self.trainer.step >= self.trainer.steps

    @property
    def look_is_due(self) -> bool:
        """Whether these parameters are to be evaluated, and have not been yet."""
        step = self.trainer.step
        due = step % self._every == 0 or step == self.trainer.steps
        return due and (not self.rows or self.rows[-1]["step"] != step)

    @property
    def next_look(self) -> int:
        """The step of the evaluation after this one."""
        return min((self.trainer.step // self._every + 1) * self._every, self.trainer.steps)

    @property
    def _every(self) -> int:
        return self.trainer.settings.evaluate_every * self.trainer.task.steps_per_epoch

    def look(self) -> Row:
        """Evaluate on validation, and keep the parameters if they are the best after a step."""
        row = self.trainer.evaluate("validation") | {"kernels": self._kernels}
        row |= _per_example(row, since=self.rows[-1] if self.rows else row)
        self.rows.append(row)
        if row["step"] > 0:
            self._waited += 1
            if self.best is None or self._score(row) > self._score(self.best):
                self.best, self._waited = row, 0
                self.best_parameters.copy_(self.trainer.parameters)
        return row

    def _score(self, row: Row) -> float:
        """What the task is judged by, more of which is better."""
        name = self.trainer.task.metrics[0]
        return float(-row[name] if name in LESS_IS_BETTER else row[name])

    def conclude(self) -> Iterator[Row]:
        """Evaluate the last parameters and then the best, which the trainer has afterwards."""
        trainer, split = self.trainer, self.trainer.last_split
        row = trainer.evaluate(split, last=True) | {"kernels": self._kernels}
        row |= _per_example(row, since={})
        yield row | {"selection": "last"}
        best = row if self.best is None else self.best
        if best["step"] != trainer.step:
            trainer.parameters.copy_(self.best_parameters)
            row |= trainer.evaluate(split, last=True)
        yield row | {"step": best["step"], "epoch": best["epoch"], "selection": "best"}

    def save_now_and_then(self) -> None:
        """Save everything, if that was `SAVE_SECONDS` ago."""
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Save everything, where there is a file for it."""
        if self.file is None:
            return
        state = {
            "trainer": self.trainer.state(),
            "rows": self.rows,
            "best": self.best,
            "best_parameters": self.best_parameters,
            "waited": self._waited,
            "code": self._code,
            "kernels": self._kernels,
        }
        with suppress(OSError):  # the disk is full perhaps, but the cell may come to its end
            save(state, self.file)
        self._saved = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        self.trainer.restore(state["trainer"])
        self.rows, self.best, self._waited = state["rows"], state["best"], state["waited"]
        self.best_parameters = state["best_parameters"]
        before, here = state["kernels"], self._kernels
        self._kernels = before if before.rpartition(THEN)[2] == here else before + THEN + here


def ready(cell: Cell, data_dir: Path | None, device: str, models: Path | None) -> Trainer:
    """A cell at its start, after a few steps of a throw-away copy.

    Raises:
        DivergedError: its warm start diverged.
        DataError: a data set is missing or damaged.
    """
    start = warm_start(cell, models, data_dir, device)

    def fresh() -> Trainer:
        trainer = Trainer(cell, data_dir, device)
        if start is not None:
            trainer.parameters.copy_(start)
        return trainer

    with suppress(DivergedError):  # which the real steps will find as well
        fresh().train(WARM_UP_STEPS)
    return fresh()


def train_cell(
    cell: Cell,
    data_dir: Path | None = None,
    device: str = "cpu",
    report: Callable[[float], None] = lambda fraction: None,
    finish: Callable[[Trainer], None] = lambda trainer: None,
    models: Path | None = None,
    checkpoint: Path | None = None,
) -> Iterator[Row]:
    """Train a cell to its end: a row for each evaluation on validation, and two at the end.

    These are of the last parameters and of those that were best on validation, evaluated on test
    with the decoder calls of the whole training; on validation once more where the cell is for
    searching settings. A cell that was interrupted goes on from its checkpoint, and has the rows
    that it would have had.

    Args:
        cell: what to train.
        data_dir: folder with the data sets that are not bundled.
        device: where to.
        report: called with the share that is done, in [0, 1].
        finish: called at the end, off the clock, with the model that was best.
        models: where warm starts are kept; None for nowhere.
        checkpoint: the file to save the training in now and then; None for none.
    Raises:
        DivergedError: the loss stopped being finite.
        DataError: a data set is missing or damaged.
    """
    trainer = ready(cell, data_dir, device, models)
    course = Course(trainer, checkpoint)
    yield from list(course.rows)
    while True:
        if course.look_is_due:
            yield course.look()
        if course.over:
            break
        trainer.train(min(REPORT_EVERY, course.next_look - trainer.step))
        course.save_now_and_then()
        try:
            report(trainer.step / trainer.steps)
        except Exception:  # whoever ends a cell here may want it to go on one day
            course.save()
            raise
    course.save_now_and_then()  # what follows may take long
    yield from course.conclude()
    finish(trainer)


def _per_example(row: Row, since: Row) -> Row:
    """What an example has cost since an earlier row, or from the start on if that is empty; None
    where there were no examples."""
    examples = row["examples"] - since.get("examples", 0)
    totals = {name: f"{name}_total" for name in COUNTED}
    return {
        name: (row[total] - since.get(total, 0)) / examples if examples else None
        for name, total in totals.items()
    }
