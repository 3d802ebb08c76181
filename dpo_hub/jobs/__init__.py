"""The processes that train runs: the worker on this machine, and jobs on the Hub's machines."""
