"""From a file to preference pairs."""

from .layouts import read_preferences as read_preferences
from .pairs import PreferencePair as PreferencePair
from .pairs import Preferences as Preferences
from .pairs import text_of as text_of
from .split import split_pairs as split_pairs
