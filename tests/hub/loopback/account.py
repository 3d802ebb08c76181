"""Who asks, what machines cost, and making repositories."""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from .state import Hub, Refusal, Repo, readable, require_writer, token_of, user_of, writable

FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def front_matter(text: str) -> Any:
    """The metadata that a card begins with, or None."""
    found = FRONT_MATTER.match(text)
    return yaml.safe_load(found[1]) if found else None


MACHINES: list[dict[str, Any]] = [
    {"name": "cpu-basic", "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB", "accelerator": None}
    | {"unitCostMicroUSD": 167, "unitCostUSD": 0.000167, "unitLabel": "minute"},
    {"name": "a10g-small", "prettyName": "Nvidia A10G - small", "cpu": "4 vCPU", "ram": "15 GB"}
    | {"accelerator": {"type": "gpu", "model": "A10G", "quantity": "1", "vram": "24 GB", "manufacturer": "Nvidia"}}
    | {"unitCostMicroUSD": 16667, "unitCostUSD": 0.016667, "unitLabel": "minute"},
]
"""Machines for jobs and Spaces, as the Hub describes them."""


def build_account(app: FastAPI, hub: Hub) -> None:
    @app.get("/api/whoami-v2")
    def whoami(request: Request) -> dict[str, Any]:
        user = user_of(hub, request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        role = "read" if token_of(request) in hub.read_only else "write"
        auth = {"type": "access_token", "accessToken": {"displayName": "laptop", "role": role}}
        return {"type": "user", "name": user, "orgs": [], "auth": auth} | hub.said.get(token_of(request), {})

    @app.get("/api/{kind}/{owner}/{name}/auth-check")
    def may_read(owner: str, name: str, request: Request) -> None:
        readable(hub, request, f"{owner}/{name}")

    @app.get("/api/{kind}/{owner}/{name}/auth-check/write")
    def may_write(owner: str, name: str, request: Request) -> None:
        writable(hub, request, f"{owner}/{name}")

    @app.get("/api/jobs/hardware")
    def jobs_hardware() -> list[dict[str, Any]]:
        return MACHINES

    @app.get("/api/spaces/hardware")
    def spaces_hardware() -> list[dict[str, Any]]:
        return MACHINES

    @app.post("/api/repos/create")
    async def create(request: Request) -> Response:
        asked = await request.json()
        owner = asked["organization"] or user_of(hub, request) or ""
        require_writer(hub, request, owner)
        repo_id, kind = f"{owner}/{asked['name']}", asked.get("type") or "model"
        there = hub.of_kind(kind)
        url = {"url": f"{hub.endpoint}/{'' if kind == 'model' else f'{kind}s/'}{repo_id}"}
        if repo_id in there:
            raise Refusal(409, f"You already created this {kind} repo", **url)
        if hub.refusing:
            raise Refusal(*hub.refusing)
        secrets = {secret["key"]: secret["value"] for secret in asked.pop("secrets", [])}
        there[repo_id] = Repo(asked.get("visibility") == "private", settings=asked, secrets=secrets)
        return JSONResponse(url)

    @app.post("/api/validate-yaml")
    async def validate(request: Request) -> Response:
        try:
            card = front_matter((await request.json())["content"])
        except yaml.YAMLError as error:
            return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
        if not isinstance(card, dict):
            return JSONResponse({"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
        hub.cards.append(card)
        return JSONResponse({"errors": [], "warnings": []})
