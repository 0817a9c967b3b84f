"""An issuer of tokens for development: OpenID Connect discovery, JWKS and client credentials. Never in production.

`python -m stack.issuer PORT FOLDER`: `clients.json` there holds the secrets; the client `scenario` speaks for people.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import sys
import time
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jwt
import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from stack.files import write_private

TOKEN_SECONDS = 3600


class Keys:
    """Signing keys, newest first. Older ones stay published until the tokens that they signed have ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._keys: list[tuple[str, rsa.RSAPrivateKey]] = []
        if not self._files():
            self.rotate()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("key-*.pem"), reverse=True)

    def rotate(self) -> None:
        """Sign with a new key from now on; forget those whose successor is older than a token may be."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        now = time.time_ns()
        write_private(self._folder / f"key-{now}.pem", pem.decode())
        files = self._files()
        for successor, old in pairwise(files):
            if now - int(successor.stem.removeprefix("key-")) > TOKEN_SECONDS * 1_000_000_000:
                old.unlink(missing_ok=True)

    @property
    def current(self) -> list[tuple[str, rsa.RSAPrivateKey]]:
        files = self._files()
        if (names := [file.name for file in files]) != self._names:
            loaded = [(file.stem, serialization.load_pem_private_key(file.read_bytes(), None)) for file in files]
            self._keys = [(kid, key) for kid, key in loaded if isinstance(key, rsa.RSAPrivateKey)]
            self._names = names
        return self._keys


def issuer(url: str, keys: Keys, clients: dict[str, str]) -> FastAPI:
    app = FastAPI(title="development issuer")

    @app.get("/.well-known/openid-configuration")
    def discovery() -> dict[str, Any]:
        return {
            "issuer": url,
            "jwks_uri": f"{url}/jwks",
            "token_endpoint": f"{url}/token",
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
        }

    @app.get("/jwks")
    def jwks() -> dict[str, Any]:
        return {
            "keys": [
                {
                    **jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True),
                    "kid": kid,
                    "alg": "RS256",
                    "use": "sig",
                }
                for kid, key in keys.current
            ]
        }

    @app.post("/token")
    async def token(request: Request) -> JSONResponse:
        asked = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        client_id, audience = asked.get("client_id", ""), asked.get("audience", "").split()
        secret = clients.get(client_id, secrets.token_hex())
        if not hmac.compare_digest(secret.encode(), asked.get("client_secret", "").encode()):
            return JSONResponse({"error": "invalid_client"}, 401)
        if asked.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        if not audience:
            return JSONResponse({"error": "invalid_request", "error_description": "audience is missing"}, 400)
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": url,
            "aud": audience,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "jti": str(uuid.uuid4()),
        }
        if client_id == "scenario":
            person_id = asked.get("person_id")
            claims |= {
                "sub": asked.get("sub") or person_id or client_id,
                "roles": asked.get("roles", "").split(),
                "agency_ids": asked.get("agency_ids", "").split(),
            }
            if person_id:
                claims["person_id"] = person_id
        else:
            claims |= {"sub": client_id, "client_id": client_id, "roles": ["service"], "agency_ids": []}
        kid, key = keys.current[0]
        signed = jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid})
        granted = {"access_token": signed, "token_type": "Bearer", "expires_in": TOKEN_SECONDS}
        return JSONResponse(granted, headers={"Cache-Control": "no-store"})

    return app


def main() -> None:
    if os.environ.get("ENVIRONMENT") != "development":
        raise SystemExit("the development issuer runs only with ENVIRONMENT=development")
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    clients = json.loads((folder / "clients.json").read_text())
    app = issuer(f"http://127.0.0.1:{port}", Keys(folder), clients)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
