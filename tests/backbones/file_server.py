"""A web server on this machine that serves a folder as the publishers' do, and fails as networks do."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Server:
    """What it does next, and what it was asked."""

    url: str = ""
    cut_after: int | None = None
    """Bytes after which it closes the connection of an answer."""
    cuts: int = 0
    """How many more answers it cuts."""
    status: int = 200
    chunked: bool = False
    """Whether it sends its answers in chunks, without their length."""
    page: bool = False
    """Whether it sends a web page, as the login of a hotel's network does."""
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of every request."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server of the files of `folder`, by name, with ETag and Range."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            state.ranges.append(self.headers["Range"])
            path = folder / self.path.lstrip("/")
            if state.status != 200 or not (path.is_file() or state.page):
                self.send_error(state.status if state.status != 200 else 404)
                return
            content = b"<html></html>" if state.page else path.read_bytes()
            tag = f'"{hashlib.md5(content).hexdigest()}"'
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            if self.headers["If-Range"] not in (None, tag):
                start = 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", "text/html" if state.page else "application/octet-stream")
            if state.chunked:
                self.protocol_version = "HTTP/1.1"
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", tag)
            self.end_headers()
            cut = state.cuts > 0 and state.cut_after is not None
            state.cuts -= cut
            part = content[start : start + state.cut_after] if cut else content[start:]
            if state.chunked:
                part = b"%x\r\n" % len(part) + part + (b"\r\n" if cut else b"\r\n0\r\n\r\n")
            self.wfile.write(part)

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            pass  # the other side hung up

    with Quiet(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()
