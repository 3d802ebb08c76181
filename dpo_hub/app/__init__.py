"""The app: from a file to a model that both sides of can be talked to, on one page. Needs the `app` extra."""

from __future__ import annotations

import os
from typing import Any


def launch(**options: Any) -> None:
    """Serve the app until interrupted; *options* are Gradio's `launch` options, such as `server_port`.

    It listens on 127.0.0.1 unless `server_name`, or `GRADIO_SERVER_NAME` as on a Space, says otherwise.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from .page import build
    from .theme import CSS, theme

    build().launch(
        **{
            "theme": theme(),
            "css": CSS,
            "max_file_size": "50mb",
            "run_history": False,
            "footer_links": ["gradio", "settings"],
            "ssr_mode": False,
            **options,
        }
    )
