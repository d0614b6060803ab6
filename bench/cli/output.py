"""How much the commands that run cells tell, and whom: a person or a machine."""

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """What is told of a run."""

    quiet: Annotated[bool, Parameter(negative=())] = False
    """Tell only what failed, and how it all ended."""
    json: Annotated[bool, Parameter(negative=())] = False
    """Write JSON lines to standard output and nothing else: one as each cell ends, one at last."""

    def check(self) -> None:
        """Refuse what can't be together.

        Raises:
            UserError: both options are given.
        """
        if self.quiet and self.json:
            raise UserError("--quiet and --json: give one of them")

    def console(self) -> "Console":
        """Where to tell a person; nowhere where a machine reads.

        Nothing moves in what is no terminal, whatever colours FORCE_COLOR wants there.
        """
        from rich.console import Console

        return Console(quiet=self.json, force_interactive=None if sys.stdout.isatty() else False)

    def emit(self, event: str, **values: Any) -> None:
        """Tell a machine, if one reads."""
        if self.json:
            print(json.dumps({"event": event, **values}), flush=True)
