"""Estimators and the tasks that they run on."""

from estimators.registry import all_estimators
from tasks.registry import all_tasks

PAIRS = [
    (task.name, name)
    for task in all_tasks().values()
    for name, estimator in all_estimators().items()
    if issubclass(task.space_type, estimator.spaces)
    and not (estimator.own_model and task.has_labels)
    and not (estimator.takes_slopes and not task.accepts_relaxed)
]
"""All of them."""

_TASKS = {name: [task for task, other in PAIRS if other == name] for name in all_estimators()}
ONE_EACH = [(tasks[place % len(tasks)], name) for place, (name, tasks) in enumerate(_TASKS.items())]
"""Each estimator once, on tasks in turn: for what a task makes no difference to."""
