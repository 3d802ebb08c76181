"""From a file to preference pairs."""

from .pairs import PreferencePair as PreferencePair
from .pairs import Preferences as Preferences
from .pairs import text_of as text_of
from .read import read_preferences as read_preferences
from .split import split_pairs as split_pairs
