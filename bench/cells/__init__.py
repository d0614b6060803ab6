"""A cell: one estimator on one task at one seed, from its settings to its rows."""
