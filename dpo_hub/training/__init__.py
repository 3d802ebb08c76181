"""From a run folder to an adapter. Needs the `train` extra."""
