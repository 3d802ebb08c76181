"""Every step in both themes and at both widths: no serious violation of WCAG AA, no sideways scrolling, a picture."""

from __future__ import annotations

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright import sync_api

from dpo_hub import Run
from dpo_hub.app.place import STEPS

from .conftest import ARTIFACTS, THERE, OpenPage, Served, Trouble

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


@pytest.fixture
def address(app: Served, finished: Run) -> str:
    """Where a finished run is open."""
    app.start()
    return f"{app.url}/?run={finished.id}&step={next(iter(STEPS))}"


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "light"),
        *(pytest.param(*screen, marks=pytest.mark.full) for screen in [(1440, "light"), (1440, "dark"), (390, "dark")]),
    ],
)
def test_every_step_is_readable(
    address: str, new_page: OpenPage, trouble: Trouble, width: int, scheme: Literal["light", "dark"]
) -> None:
    """axe-core finds nothing serious on any step with a finished run open, and the page is as wide as the screen."""
    ARTIFACTS.mkdir(exist_ok=True)
    page = new_page(width=width, scheme=scheme)
    page.goto(address)
    found = []
    for step, title in STEPS.items():
        page.get_by_role("tab", name=title, exact=True).click()
        sync_api.expect(page.locator(THERE[step]).first).to_be_visible()
        page.screenshot(path=ARTIFACTS / f"{step}-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") == width, step
        found += [f"{step}: {violation}" for violation in _violations(page)]
    assert not found, "\n".join(found)
    assert not trouble.errors
    assert not trouble.outside


def _violations(page: sync_api.Page) -> list[str]:
    """What axe-core finds that is serious or worse."""
    response = Axe().run(page, options=RULES).response
    return [
        f"{violation['id']} ({violation['help']}): {[node['html'][:160] for node in violation['nodes'][:3]]}"
        for violation in response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
