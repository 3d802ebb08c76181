"""Before and after, side by side. Needs the `train` extra."""
