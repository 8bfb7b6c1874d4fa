"""Size of a file, quality on held-out data, time on the clock: measured, as frozen dataclasses."""
