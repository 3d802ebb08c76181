"""Signing in with the loopback Hub: OpenID Connect, as far as a Space's app asks for it.

Whoever comes to the Hub's page is signed in at once, as the user `Hub.signing_in`.
"""

from __future__ import annotations

import json
import time
from secrets import token_hex
from typing import Any, cast
from urllib.parse import parse_qs, urlencode

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

from .state import Hub, Refusal, user_of

LIFETIME = 8 * 60 * 60


def build_oidc(app: FastAPI, hub: Hub) -> None:
    codes: dict[str, dict[str, str]] = {}
    keys: list[Any] = []

    def key() -> Any:
        """The key that signs, made when somebody needs it: that takes a moment, and a package that few tests need."""
        from joserfc.jwk import RSAKey

        if not keys:
            keys.append(RSAKey.generate_key(2048, {"kid": "loopback"}))
        return keys[0]

    @app.get("/.well-known/openid-configuration")
    def configuration() -> dict[str, Any]:
        addresses = {
            "authorization_endpoint": "authorize",
            "token_endpoint": "token",
            "jwks_uri": "jwks",
            "userinfo_endpoint": "userinfo",
        }
        return {name: f"{hub.endpoint}/oauth/{end}" for name, end in addresses.items()} | {
            "issuer": hub.endpoint,
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
        }

    @app.get("/oauth/authorize")
    def authorize(request: Request) -> RedirectResponse:
        asked, code = request.query_params, token_hex(8)
        codes[code] = {"user": hub.signing_in, **asked}
        back = urlencode({"code": code, "state": asked["state"]})
        return RedirectResponse(f"{asked['redirect_uri']}&{back}")

    @app.post("/oauth/token")
    async def token(request: Request) -> dict[str, Any]:
        from joserfc import jwt

        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        asked = codes.pop(form.get("code", ""), None)
        if asked is None or asked["redirect_uri"] != form.get("redirect_uri"):
            raise Refusal(400, "invalid_grant")
        now = int(time.time())
        claims = about(asked["user"]) | {"iss": hub.endpoint, "aud": asked["client_id"], "iat": now, "exp": now + 600}
        claims |= {"nonce": asked["nonce"]} if "nonce" in asked else {}
        return {
            "access_token": next(token for token, user in hub.users.items() if user == asked["user"]),
            "token_type": "bearer",
            "expires_in": LIFETIME,
            "scope": asked["scope"],
            "id_token": jwt.encode({"alg": "RS256", "kid": "loopback"}, claims, key()),
        }

    @app.get("/oauth/jwks")
    def jwks() -> dict[str, Any]:
        return {"keys": [cast(dict[str, Any], json.loads(json.dumps(key().as_dict(private=False))))]}

    @app.get("/oauth/userinfo")
    def userinfo(request: Request) -> dict[str, Any]:
        user = user_of(hub, request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        return about(user)

    def about(user: str) -> dict[str, Any]:
        profile = {"profile": f"{hub.endpoint}/{user}", "picture": f"{hub.endpoint}/avatars/{user}.png", "website": ""}
        return {"sub": f"id-of-{user}", "name": user.title(), "preferred_username": user, **profile}
