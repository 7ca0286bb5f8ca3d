"""HTTP: which endpoint answers which path, on the Hub's port and on the storage host's port."""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from .messages import Call, Refusal, Reply, Request
from .reading import model_info, refs, resolve
from .writing import (
    commit,
    create_repo,
    create_tag,
    lfs_batch,
    lfs_verify,
    preupload,
    stored_object,
    validate_yaml,
)

if TYPE_CHECKING:
    from .hub import LoopbackHub


@dataclass(frozen=True)
class Route:
    methods: tuple[str, ...]
    pattern: re.Pattern[str]
    answer: Callable[..., Reply]


def route(methods: str, template: str, answer: Callable[..., Reply]) -> Route:
    # values in the path are percent-encoded, so a branch with a slash is one segment
    pattern = template.replace("{repo_id}", "(?P<repo_id>[^/]+/[^/]+)").replace("{path}", "(?P<path>.+)")
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
    return Route(tuple(methods.split()), re.compile(pattern), answer)


HUB_ROUTES = [
    route("GET HEAD", "/{repo_id}/resolve/{revision}/{path}", resolve),
    route("POST", r"/{repo_id}\.git/info/lfs/objects/batch", lfs_batch),
    route("POST", r"/{repo_id}\.git/info/lfs/objects/verify", lfs_verify),
    route("POST", "/api/validate-yaml", validate_yaml),
    route("POST", "/api/repos/create", create_repo),
    route("GET", "/api/models/{repo_id}", model_info),
    route("GET", "/api/models/{repo_id}/revision/{revision}", model_info),
    route("GET", "/api/models/{repo_id}/refs", refs),
    route("POST", "/api/models/{repo_id}/preupload/{revision}", preupload),
    route("POST", "/api/models/{repo_id}/commit/{revision}", commit),
    route("POST", "/api/models/{repo_id}/tag/{revision}", create_tag),
]


STORAGE_ROUTES = [
    route("PUT GET HEAD", "/{sha256}", stored_object),
    route("GET HEAD", "/{sha256}/{path}", stored_object),
]


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # snapshot_download opens many connections at once

    def __init__(self, hub: LoopbackHub, routes: list[Route]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.routes = routes
        # a short poll interval, because shutdown waits for it
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks up the host's name, which takes seconds without DNS
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        if self.thread.is_alive():
            self.shutdown()
            self.thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        # one request per connection: a connection that stays open would be answered after the server has stopped
        self.close_connection = True
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body(headers)
        call = Call(self.server.hub, self.command, parse_qs(url.query), headers, body)
        reply = self._answer(call, url.path)
        storage = self.server is self.server.hub.storage_server
        request = Request(self.command, url.path, url.query, headers, reply.status, storage)
        self.server.hub.requests.append(request)
        self._send(reply)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, call: Call, path: str) -> Reply:
        if (every := self.server.hub.refusal) is not None:
            return every.reply
        for route in self.server.routes:
            match = route.pattern.fullmatch(path)
            if match and call.method in route.methods:
                values = {name: unquote(value) for name, value in match.groupdict().items()}
                try:
                    with self.server.hub.lock:
                        return route.answer(call, **values)
                except Refusal as refusal:
                    return refusal.reply
                except Exception as error:
                    # 501: an error in this server or in the test; the client must report the error and not retry
                    return Refusal(501, f"the loopback hub failed: {error!r}").reply
        return Refusal(404, f"the loopback hub has no {call.method} {path}").reply

    def _send(self, reply: Reply) -> None:
        body, keep = reply.body, len(reply.body)
        if reply.filename is not None and self.command == "GET":
            body, keep = self.server.hub.damage(reply.filename, body)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(memoryview(body)[:keep])

    def log_message(self, format: str, *args: object) -> None:
        pass
