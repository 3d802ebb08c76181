"""Runs: their folders and states, the queue for the device, and the processes that supervise them."""
