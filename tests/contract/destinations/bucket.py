"""A small, strict object store: signatures are checked, a conditional put is one, and nothing is answered by guess.

Source: Amazon S3 API reference (PutObject, HeadObject, GetObject, ListObjectsV2), Signature Version 4.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

ACCESS, SECRET, BUCKET = "AKIATESTTESTTEST", "kunci-rahasia-uji", "citra"


class Bucket:
    """One bucket on this machine; `objects` is what it holds, `refuse` an error code for every put."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.refuse: tuple[int, str] | None = None
        self.parts: dict[str, dict[int, bytes]] = {}
        self.puts = 0
        self.lock = threading.Lock()
        store = self

        class Handler(_Handler):
            bucket = store

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def arrived(self) -> dict[str, str]:
        """SHA-256 of each object by the last part of its key without .dcm."""
        return {key.rpartition("/")[2].removesuffix(".dcm"): hashlib.sha256(data).hexdigest()
                for key, data in self.objects.items()}


class _Handler(BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _fail(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _key(self) -> str | None:
        """Return the object's key after the signature has been checked; None if an error was answered."""
        parts = urlsplit(self.path)
        if not self._is_signed(parts.path, parts.query):
            self._fail(403, "SignatureDoesNotMatch")
            return None
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if bucket != BUCKET:
            self._fail(404, "NoSuchBucket")
            return None
        return key

    def _is_signed(self, path: str, query: str) -> bool:
        """Check AWS4-HMAC-SHA256 over the request as received."""
        scheme, _, rest = self.headers.get("Authorization", "").partition(" ")
        fields = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
        credential = fields.get("Credential", "").split("/")
        if scheme != "AWS4-HMAC-SHA256" or len(credential) != 5 or credential[0] != ACCESS:
            return False
        _, day, region, service, _ = credential
        signed = fields["SignedHeaders"].split(";")
        pairs = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in parse_qsl(query, True))
        canonical = "\n".join([
            self.command, quote(unquote(path), safe="/-_.~"), "&".join(f"{k}={v}" for k, v in pairs),
            *(f"{name}:{' '.join((self.headers.get(name) or '').split())}" for name in signed), "",
            fields["SignedHeaders"], self.headers["x-amz-content-sha256"]])
        scope = "/".join(credential[1:])
        text = "\n".join(["AWS4-HMAC-SHA256", self.headers["x-amz-date"], scope,
                          hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{SECRET}".encode()
        for part in (day, region, service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), fields["Signature"])

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        key = self._key()
        if key is None:
            return
        stated = self.headers["x-amz-content-sha256"]
        if stated not in ("UNSIGNED-PAYLOAD", hashlib.sha256(data).hexdigest()):
            self._fail(400, "XAmzContentSHA256Mismatch")
        elif self.bucket.refuse:
            self._fail(*self.bucket.refuse)
        elif "uploadId" in self._query():
            with self.bucket.lock:
                self.bucket.parts[self._query()["uploadId"]][int(self._query()["partNumber"])] = data
            self._answer(200, ETag='"part"')
        else:
            with self.bucket.lock:
                self.bucket.puts += 1
                exists = key in self.bucket.objects
                if exists and self.headers.get("If-None-Match") == "*":
                    self._fail(412, "PreconditionFailed")
                    return
                self.bucket.objects[key] = data
            self._answer(200, ETag=f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"')

    def _query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))

    def do_POST(self) -> None:
        """Begin or complete an upload in parts; the object appears with the completion."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = self._key()
        if key is None:
            return
        query = self._query()
        with self.bucket.lock:
            if "uploads" in query:
                upload = f"u{len(self.bucket.parts)}"
                self.bucket.parts[upload] = {}
                root = "InitiateMultipartUploadResult"
            else:
                assert body.count(b"<PartNumber>") == len(self.bucket.parts[query["uploadId"]])
                upload, root = query["uploadId"], "CompleteMultipartUploadResult"
                self.bucket.objects[key] = b"".join(part for _, part in sorted(self.bucket.parts[upload].items()))
        self._answer(200, f"<{root}><Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
                     f'<ETag>"x"</ETag></{root}>'.encode())

    def do_HEAD(self) -> None:
        self._give()

    def do_GET(self) -> None:
        if "list-type" in self.path:
            if self._key() is None:
                return
            entries = "".join(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>x</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key, data in sorted(self.bucket.objects.items())[:1000])
            page = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
            self._answer(200, page.encode())
            return
        self._give()

    def _give(self) -> None:
        key = self._key()
        if key is None:
            return
        data = self.bucket.objects.get(key)
        if data is None:
            self._fail(404, "NoSuchKey")
            return
        self._answer(200, data, ETag='"x"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT",
                     Content_Length=str(len(data)))
