"""Imports of all tests are checked: see `tests.checking`."""

import importlib

from tests.checking import check_imports

check_imports()
importlib.import_module("bench")  # before torch, whose kernels it pins
