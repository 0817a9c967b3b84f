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
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jwt
import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI, HTTPException, Request

TOKEN_SECONDS = 3600
KEYS_KEPT = 3


class Keys:
    """Signing keys, newest first. Older ones stay published until the tokens that they signed have ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = 0
        self._keys: list[tuple[str, rsa.RSAPrivateKey]] = []
        if not self._files():
            self.rotate()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("key-*.pem"), reverse=True)

    def rotate(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = self._folder / f"key-{time.time_ns()}.pem"
        file.touch(mode=0o600)
        file.write_bytes(pem)
        for old in self._files()[KEYS_KEPT:]:
            old.unlink()

    @property
    def current(self) -> list[tuple[str, rsa.RSAPrivateKey]]:
        stamp = self._folder.stat().st_mtime_ns
        if stamp != self._stamp:
            loaded = [(f.stem, serialization.load_pem_private_key(f.read_bytes(), None)) for f in self._files()]
            self._keys = [(kid, key) for kid, key in loaded if isinstance(key, rsa.RSAPrivateKey)]
            self._stamp = stamp
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
    async def token(request: Request) -> dict[str, Any]:
        asked = dict(parse_qsl((await request.body()).decode()))
        client_id, audience = asked.get("client_id", ""), asked.get("audience", "")
        known = hmac.compare_digest(clients.get(client_id, secrets.token_hex()), asked.get("client_secret", ""))
        if asked.get("grant_type") != "client_credentials" or not known or not audience:
            raise HTTPException(401, "invalid_client")
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": url,
            "aud": audience.split(),
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
        return {"access_token": signed, "token_type": "Bearer", "expires_in": TOKEN_SECONDS}

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
