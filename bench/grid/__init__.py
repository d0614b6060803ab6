"""Many cells: run side by side, each to one outcome, whatever dies meanwhile."""
