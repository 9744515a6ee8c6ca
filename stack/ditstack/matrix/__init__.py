"""Every combination of methods, measured: cell by cell, with what pairs do to each other."""
