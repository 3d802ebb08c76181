"""A spreadsheet of preferences goes in, a better model comes out on the Hub, and anyone can see the difference.

The main steps, in order: `read_preferences`, `Recipe`, `Run.create`, then `jobs.worker.work` and
`comparison.duet.Duet`, which need the `train` extra. Importing this package loads neither torch nor gradio.
"""

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from .errors import DPOHubError as DPOHubError
from .preferences import PreferencePair as PreferencePair
from .preferences import Preferences as Preferences
from .preferences import read_preferences as read_preferences
from .recipe import Recipe as Recipe
from .runs.run import Run as Run

__version__ = "0.1.0"
