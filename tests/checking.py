"""In the test run every call is checked against its annotations, shapes included.

jaxtyping's own import hook would compile anew whatever these modules import, the libraries too.
"""

import ast
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import jaxtyped

PACKAGES = ("bench", "estimators", "tasks")

UNCHECKED = (
    # numba takes functions as they are written.
    "estimators.mappings.compiled",
    "tasks.likelihoods.compiled",
    # Annotated for old interpreters.
    "estimators.mappings.lp_sparsemap_worker",
    # A protocol that is not checkable at runtime.
    "bench.grid.executors",
    # Its own checks are for where there are no others.
    "estimators.shapes",
    # Tests give stand-ins for a task.
    "bench.cells.evaluation",
    "bench.cells.step",
    "bench.gradients.measure",
)

_CONF = BeartypeConf(
    is_pep484_tower=True,  # a whole number will do for a float, as it does for mypy
    hint_overrides=FrozenDict({Self: Any}),  # a method alone does not know its class
)

_DECORATOR = "__checked__"


def checked(decorated: Any) -> Any:
    """A function whose calls are checked, or a data class or named tuple whose making is."""
    check: Callable[[Any], Any] = jaxtyped(typechecker=beartype(conf=_CONF))
    if isinstance(decorated, type) and hasattr(decorated, "_fields"):  # a named tuple
        decorated.__new__ = staticmethod(check(decorated.__new__))  # type: ignore[method-assign]
        return decorated
    return check(decorated)


class _Loader(SourceFileLoader):
    """Decorates every function and class of a module, and keeps no bytecode of it."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                decorator = ast.copy_location(ast.Name(_DECORATOR, ast.Load()), node)
                # First comes what makes a data class, but last what makes a property.
                first = isinstance(node, ast.ClassDef)
                node.decorator_list.insert(0 if first else len(node.decorator_list), decorator)
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[_DECORATOR] = checked
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        within = {name, *(name[:end] for end, letter in enumerate(name) if letter == ".")}
        if within.isdisjoint(PACKAGES) or not within.isdisjoint(UNCHECKED):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def check_imports() -> None:
    """Check what is imported from here on."""
    sys.meta_path.insert(0, _Finder())
