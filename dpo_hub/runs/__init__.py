"""Runs: their folders and states, the line for the device, and the processes that keep them."""
