"""What a hyper-parameter search may try, declared beside the setting itself.

class Settings(BaseModel):
    temperature: Annotated[float, Range(0.1, 2, log=True)] = Field(1.0, gt=0, description=...)
    mean: Annotated[Literal["geometric", "arithmetic"], Choices()] = Field(...)
"""

from dataclasses import dataclass, replace
from typing import get_args

from pydantic import BaseModel


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included: whole ones where the setting is an int."""

    low: float
    high: float
    log: bool = False
    """Try orders of magnitude alike."""
    costs: bool = False
    """More of it takes more decoder calls: it is searched only where these are an objective."""


SAMPLES = Range(1, 16, log=True, costs=True)
"""Of the number of samples S."""
DECAY = Range(0.5, 0.99)
"""Of the share of a moving average that is kept a step."""


@dataclass(frozen=True)
class Choices:
    """Every value that the setting's Literal type names."""

    values: tuple[str, ...] = ()
    """Filled in by `searched`."""
    costs: bool = False
    """Some of them take more decoder calls: searched as a `Range` is that says so."""


def searched(settings: type[BaseModel]) -> dict[str, Range | Choices]:
    """The settings of a model that a search may vary, by name."""
    found: dict[str, Range | Choices] = {}
    for name, field in settings.model_fields.items():
        for declared in field.metadata:
            if isinstance(declared, Range):
                found[name] = declared
            elif isinstance(declared, Choices):
                found[name] = replace(declared, values=get_args(field.annotation))
    return found
