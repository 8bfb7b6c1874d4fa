"""Decide which weights stay: objectives with few non-zeros, their solvers, masks, sparse files."""
