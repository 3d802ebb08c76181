"""To the Hugging Face Hub: cards and publishing. Loads no torch."""
