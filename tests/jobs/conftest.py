"""The Hub of the Hub's own tests."""

from ..hub.conftest import hub, tiny  # noqa: F401  # fixtures
