"""Serve the app: `python app.py`, and what a Space runs."""

from dpo_hub.app import launch

if __name__ == "__main__":
    launch()
