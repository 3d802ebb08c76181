"""The app: one page, from a preference file to a chat with the model before and after. Needs the `app` extra."""

from __future__ import annotations

import os
from typing import Any

from ..errors import needing_extra
from . import limits
from .visitors import on_space


def launch(**options: Any) -> None:
    """Serve the app until interrupted; *options* are Gradio's `launch` options, such as `server_port`.

    It listens on 127.0.0.1 unless `server_name`, or `GRADIO_SERVER_NAME` as on a Space, says otherwise.

    Raises:
        MissingExtraError: gradio is not installed.
        RecipeError: a limit in the environment is not a whole number above 0.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if on_space():
        _forget_owner()
    with needing_extra("app"):
        from starlette.middleware import Middleware

    from .downloads import ROUTES
    from .origin import SameOriginMiddleware
    from .page import HEAD, build
    from .theme import css, theme

    most = limits.limits()
    build().launch(
        **{
            "theme": theme(),
            "css": css(),
            "head": HEAD,
            "app_kwargs": {"routes": ROUTES, "middleware": [Middleware(SameOriginMiddleware)]},
            "max_file_size": most.upload_mb and f"{most.upload_mb}mb",
            "run_history": False,
            "footer_links": ["gradio", "settings"],
            "ssr_mode": False,
            **options,
        }
    )


def _forget_owner() -> None:
    """Keep the Space owner's token out of visitors' requests; must come before the Hub's client is imported."""
    os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        os.environ.pop(name, None)
