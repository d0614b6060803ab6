"""Imports of all tests are checked: see `tests.checking`."""

from tests.checking import check_imports

check_imports()
