"""A request, and its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hub import LoopbackHub


@dataclass(frozen=True)
class Request:
    """One answered request.

    Attributes:
        method, path, query: as sent, percent-encoded; `path` does not include the query.
        headers: the headers, by lower-case name.
        status: the status code of the answer.
        storage: whether the request went to the storage host and not to the Hub.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    status: int
    storage: bool


@dataclass(frozen=True)
class Call:
    hub: LoopbackHub
    method: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    filename: str | None = None  # set if the body is a file: faults apply only to files


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **extra: str) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}) | extra
        self.reply = json_reply({"error": message}, status, headers)


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    head = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return Reply(status, head, json.dumps(value).encode())
