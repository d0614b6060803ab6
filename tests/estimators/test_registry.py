"""The wings that estimators are in, by the folders of their files."""

from estimators.base import Estimator
from estimators.registry import all_estimators, wing_of, wings


def defined_in(module: str) -> type[Estimator]:
    """An estimator of some module."""
    return type("Mine", (Estimator,), {"__module__": module})


def test_a_wing_is_a_folder_here_or_another_package() -> None:
    assert wing_of(all_estimators()["gumbel"]) == "relaxed"
    assert wing_of(all_estimators()["none"]) == "none"
    assert wing_of(defined_in("estimators.mixed.any.depth")) == "mixed"
    assert wing_of(defined_in("their_package.estimators.relaxed")) == "their_package"
    assert wing_of(defined_in("estimators")) == "estimators"


def test_every_estimator_is_in_one_wing_in_order() -> None:
    found = wings()
    assert [*found] == sorted(found)
    assert {*found} >= {"none", "relaxed", "sampled", "summed"}
    assert all(names == sorted(names) for names in found.values())
    assert sorted(name for names in found.values() for name in names) == [*all_estimators()]
    assert all(
        wing_of(all_estimators()[name]) == wing for wing, names in found.items() for name in names
    )
