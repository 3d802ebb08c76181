"""The progress of publishing, and its result."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from ...hub.publish import Published
from ..handlers.publishing import Publication

NO_RUN = (
    '<p class="hint">Publish when a run has finished: the adapter goes to the Hub with a card, curves, recipe and '
    "measurements, private unless you say otherwise, and is fetched again and compared.</p>"
)


def download(run_id: str) -> str:
    """A link to the adapter as a zip, and what to do with it."""
    address = escape(f"download/run/{quote(run_id)}")
    return (
        f'<p class="download"><a href="{address}" download>Download the adapter as a zip</a>: unzipped, it is loaded '
        "by the code in its README.md.</p>"
    )


def progress(goes: Publication) -> str:
    """The stages so far, and the outcome."""
    last = len(goes.stages) - 1
    items = [_stage(stage, done=goes.ended or at < last) for at, stage in enumerate(goes.stages)]
    if goes.trouble and items:
        items[-1] = _stage(goes.stages[-1], kind="failed")
    trouble = f'<p class="trouble">{escape(goes.trouble)}</p>' if goes.trouble else ""
    again = '<p class="hint">Nothing is lost: mend that, and press Publish again.</p>' if goes.trouble else ""
    done = "".join(map(_link, goes.published))
    return f'<div class="publishing" role="status"><ol>{"".join(items)}</ol>{trouble}{again}{done}</div>'


def _stage(text: str, *, done: bool = False, kind: str = "") -> str:
    kind = kind or ("done" if done else "now")
    return f'<li class="{kind}">{escape(text)}{" …" if kind == "now" else ""}</li>'


def _link(one: Published) -> str:
    address = escape(one.url)
    seen = "private" if one.private else "public"
    return (
        f'<div class="published"><p><a href="{address}" target="_blank" rel="noopener noreferrer">{address}</a> '
        f'<span class="seen">{seen}</span></p><p class="proof">{escape(one.proof.sentence())}</p></div>'
    )
