"""The app on a Hugging Face Space."""

from dpo_hub.app import launch

launch()
