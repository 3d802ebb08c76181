"""A Hugging Face Hub of one's own on 127.0.0.1: as much of the API as this project's client asks for.

It takes tokens for names and keeps commits in memory, so that a test can look at what arrived.
"""

from .faults import Fault as Fault
from .server import serving as serving
from .state import Commit as Commit
from .state import Hub as Hub
from .state import Repo as Repo
