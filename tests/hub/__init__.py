"""Publishing and cards."""
