"""`python -m dpo_hub`, the same as `dpo-hub`."""

from .cli import main

main()
