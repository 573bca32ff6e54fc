"""A small OpenID Connect provider on a port of this machine: discovery, authorization, token, keys; and what it saw."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "router", "provider-secret-0123456789"


class Provider:
    """One provider with one person; `claims` are theirs, `spoil` changes the ID token's before it is signed."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig", "alg": "RS256"}, private=True)
        self.claims: dict[str, Any] = {"sub": "u-1", "preferred_username": "Budi.S", "groups": ["radiology"]}
        self.spoil: dict[str, Any] = {}
        self.signing_key = self.key
        self.algorithm = "RS256"
        self.description: dict[str, Any] = {}
        self.requests: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.requests.append(f"GET {urlsplit(self.path).path}")
                provider.answer(self, urlsplit(self.path).path, dict(parse_qsl(urlsplit(self.path).query)))

            def do_POST(self) -> None:
                provider.requests.append(f"POST {urlsplit(self.path).path}")
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                provider.answer(self, urlsplit(self.path).path, {k: v[0] for k, v in parse_qs(body).items()})

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, path: str, values: dict[str, str]) -> None:
        if path == "/.well-known/openid-configuration":
            self._json(handler, {
                "issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/keys", **self.description})
        elif path == "/keys":
            self._json(handler, {"keys": [self.key.as_dict(private=False)]})
        elif path == "/authorize":
            code = secrets.token_urlsafe(16)
            self._codes[code] = values
            handler.send_response(302)
            query = urlencode({"code": code, "state": values["state"]})
            handler.send_header("Location", f"{values['redirect_uri']}?{query}")
            handler.end_headers()
        elif path == "/token":
            self._token(handler, values)
        else:
            handler.send_error(404)

    def _token(self, handler: BaseHTTPRequestHandler, values: dict[str, str]) -> None:
        asked = self._codes.pop(values.get("code", ""), None)
        basic = base64.b64decode(handler.headers.get("Authorization", "Basic ").split()[-1] + "==").decode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(values.get("code_verifier", "").encode()).digest())
        is_client = basic == f"{CLIENT}:{SECRET}" or values.get("client_secret") == SECRET
        if asked is None or not is_client or asked["code_challenge"] != challenge.decode().rstrip("=") or \
                asked["code_challenge_method"] != "S256" or asked["redirect_uri"] != values["redirect_uri"]:
            self._json(handler, {"error": "invalid_grant"}, 400)
            return
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"],
                  **self.claims, **self.spoil}
        token = jwt.encode({"alg": self.algorithm, "kid": "k1"}, {k: v for k, v in claims.items() if v is not None},
                           self.signing_key, algorithms=[self.algorithm])
        self._json(handler, {"access_token": "at", "token_type": "Bearer", "id_token": token})

    def _json(self, handler: BaseHTTPRequestHandler, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
