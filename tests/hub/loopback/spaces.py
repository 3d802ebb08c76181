"""Spaces at work, and buckets."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from .state import Hub, Refusal, require_writer, user_of, visible, writable

LOGS = {"build": ["Cloning\n", "Installing requirements.txt\n"], "run": ["Running on local URL\n"]}


def build_spaces(app: FastAPI, hub: Hub) -> None:
    @app.get("/api/spaces/{owner}/{name}/logs/{of}")
    def logs(owner: str, name: str, of: str, request: Request) -> PlainTextResponse:
        """Events as they are streamed, and an empty one that keeps the connection."""
        visible(hub, request, f"{owner}/{name}")
        said = [{"data": line, "timestamp": "2026-01-01T00:00:00Z"} for line in LOGS[of]]
        events = [f"data: {json.dumps(event)}\n\n" for event in said]
        return PlainTextResponse("data:\n\n".join(events), media_type="text/event-stream")

    @app.post("/api/spaces/{owner}/{name}/pause")
    def pause(owner: str, name: str, request: Request) -> dict[str, Any]:
        return put(request, f"{owner}/{name}", "PAUSED")

    @app.post("/api/spaces/{owner}/{name}/restart")
    def restart(owner: str, name: str, request: Request) -> dict[str, Any]:
        return put(request, f"{owner}/{name}", "BUILDING")

    def put(request: Request, repo_id: str, stage: str) -> dict[str, Any]:
        writable(hub, request, repo_id).stage = stage
        return {"stage": stage, "hardware": {"current": None, "requested": None}}

    @app.post("/api/buckets/{owner}/{name}")
    async def create_bucket(owner: str, name: str, request: Request) -> dict[str, Any]:
        require_writer(hub, request, owner)
        url = f"{hub.endpoint}/buckets/{owner}/{name}"
        if f"{owner}/{name}" in hub.buckets:
            raise Refusal(409, "You already created this bucket", url=url)
        hub.buckets[f"{owner}/{name}"] = (await request.json()).get("visibility") == "private"
        return {"url": url}

    @app.get("/api/buckets/{owner}/{name}")
    def bucket(owner: str, name: str, request: Request) -> dict[str, Any]:
        private = hub.buckets.get(f"{owner}/{name}")
        if private is None or (private and user_of(hub, request) != owner):
            raise Refusal(404, "Bucket not found", "BucketNotFound")
        about = {"id": f"{owner}/{name}", "private": private, "createdAt": "2026-01-01T00:00:00.000Z"}
        return about | {"size": 0, "totalFiles": 0}
