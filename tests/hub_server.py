"""A small server that speaks as much of the Hugging Face hub's protocol as a download needs."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

COMMIT = "a" * 40


@dataclass
class HubServer:
    """One model, `repo`, and what was asked for."""

    files: dict[str, bytes]
    repo: str = "org/model"
    url: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path, range."""
    cut_once: set[str] = field(default_factory=set)
    """Files of which the first answer ends half way."""
    damaged: set[str] = field(default_factory=set)
    """Files that arrive with a byte changed."""

    def asked(self, method: str = "GET") -> list[str]:
        return [path.rsplit("/", 1)[1] for kind, path, _ in self.requests if kind == method and "/resolve/" in path]


@contextmanager
def serving(server: HubServer) -> Iterator[HubServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *arguments: object) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            path, asked_range = self.path.split("?")[0], self.headers.get("Range")
            server.requests.append((self.command, path, asked_range))
            code, headers, name, length = 200, {}, path.rsplit("/", 1)[1], None
            if path.startswith(f"/api/models/{server.repo}/tree/"):
                body = json.dumps([_entry(name, data) for name, data in server.files.items()]).encode()
            elif path.startswith(f"/api/models/{server.repo}/"):
                siblings = [{"rfilename": name} for name in server.files]
                body = json.dumps({"id": server.repo, "sha": COMMIT, "siblings": siblings, "private": False}).encode()
            elif path.startswith(f"/{server.repo}/resolve/") and name in server.files:
                body = server.files[name]
                headers = {"ETag": f'"{_etag(name, body)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
                if name in server.damaged:
                    body = bytes([body[0] ^ 1]) + body[1:]
                if asked_range:
                    start = int(asked_range.removeprefix("bytes=").rstrip("-"))
                    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                    code, body = 206, body[start:]
                if with_body and name in server.cut_once:
                    server.cut_once.remove(name)
                    length, body = len(body), body[: len(body) // 2]
            else:
                code, body, headers = 404, b"{}", {"X-Error-Code": "RepoNotFound"}
            self.send_response(code)
            for key, value in {"Content-Length": str(length or len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        server.url = f"http://127.0.0.1:{listener.server_port}"
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


def _etag(name: str, data: bytes) -> str:
    """Large files are known by their SHA-256 sum, others by what git calls them."""
    is_large = name.endswith((".safetensors", ".bin"))
    return hashlib.sha256(data).hexdigest() if is_large else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(name: str, data: bytes) -> dict[str, object]:
    large = {"lfs": {"oid": _etag(name, data), "size": len(data), "pointerSize": 134}}
    is_large = name.endswith((".safetensors", ".bin"))
    return {"type": "file", "path": name, "size": len(data), "oid": "b" * 40} | (large if is_large else {})
