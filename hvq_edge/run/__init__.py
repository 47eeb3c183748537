"""A training run's folder: its record, its settings, the list of runs."""
