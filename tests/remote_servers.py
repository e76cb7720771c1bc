"""Servers on this machine that stand in for remote ones: sound, slow, cutting off; as Google's storage and S3 they do, too."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Server:
    """Serves the files of a folder, and does to those whose name ends in a key of `tricks` what it says.

    `tricks`: "hang" (no answer), "trickle" (a few bytes a second), "cut" (half of the file), "500", "403", or bytes to send
    in its place.
    """

    folder: Path
    url: str = ""
    tricks: dict[str, str | bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Names of the files asked for, in order."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A running server, at `url`; ends with the block."""
    server = Server(folder)
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            path = server.folder / unquote(urlsplit(self.path).path).lstrip("/")
            self._head(200 if path.is_file() else 404, path.stat().st_size if path.is_file() else 0)

        def do_GET(self) -> None:
            if "list-type=" in self.path:
                self._list()
                return
            name = unquote(urlsplit(self.path).path).lstrip("/")
            if name.startswith("storage/v1/b/"):
                name = name.partition("/o/")[2].partition("/")[2]
            server.asked.append(name)
            trick = next((trick for end, trick in server.tricks.items() if name.endswith(end)), None)
            self._answer(name, trick)

        def _answer(self, name: str, trick: str | bytes | None) -> None:
            path = server.folder / name
            if trick == "hang":
                ended.wait(30)
                self.close_connection = True
                return
            if trick in ("500", "403") or not path.is_file():
                self._head(int(trick) if trick in ("500", "403") else 404, 0)
                return
            data = trick if isinstance(trick, bytes) else path.read_bytes()
            first, last = self._range(len(data))
            self._head(206 if self.headers.get("Range") else 200, last + 1 - first, f"bytes {first}-{last}/{len(data)}")
            if trick == "trickle":
                for byte in data:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    if ended.wait(0.05):
                        return
            if trick == "cut":
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            self.wfile.write(data[first : last + 1])

        def _list(self) -> None:
            """The names in a bucket (a subfolder), as S3 tells them."""
            asked = urlsplit(self.path)
            bucket = server.folder / asked.path.strip("/")
            prefix = parse_qs(asked.query).get("prefix", [""])[0]
            names = sorted(path.relative_to(bucket).as_posix() for path in bucket.rglob("*") if path.is_file())
            entries = "".join(
                f"<Contents><Key>{name}</Key><Size>{(bucket / name).stat().st_size}</Size>"
                "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
                for name in names
                if name.startswith(prefix)
            )
            body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()
            self._head(200, len(body))
            self.wfile.write(body)

        def _range(self, size: int) -> tuple[int, int]:
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            if not first:
                return max(0, size - int(last)), size - 1
            return int(first), min(int(last or size), size - 1)

        def _head(self, status: int, length: int, span: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.send_header("x-goog-generation", "1")
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            if span:
                self.send_header("Content-Range", span)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: object) -> None:
            pass  # clients hang up on purpose

    with Quiet(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{running.server_port}"
        yield server
        ended.set()
        running.shutdown()
        thread.join()
