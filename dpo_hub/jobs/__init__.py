"""A run at work: the worker on this machine, and jobs on those of the Hub."""
