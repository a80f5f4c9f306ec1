"""Who may speak to the studio.

Invariant: on this machine alone, only requests that name this machine as their host are answered, so that no page of
another site can reach it by a name of its own; with a token, only requests that carry it. WebSockets are held to both,
and to their page's origin.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from jade_graph.errors import UsageError

Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
COOKIE = "jade_studio"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: wss:; object-src 'none'; "
    "base-uri 'self'; frame-ancestors 'none'; form-action 'self'"
)


def is_loopback(host: str) -> bool:
    """Whether a server on this address can be reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_token(host: str, token: str | None) -> None:
    """Raise `UsageError` STUDIO_TOKEN where others could reach the studio without one."""
    if not is_loopback(host) and (not token or len(token) < 16):
        raise UsageError(
            f"on {host!r} others can reach the studio, and there is "
            + ("no token." if not token else "a token of fewer than 16 characters."),
            code="STUDIO_TOKEN",
            hint=f"jade studio --host {host} --token $(openssl rand -hex 16)",
        )


class Guard:
    """ASGI middleware in front of everything.

    Args:
        token: what whoever asks must show: `?token=` once, a cookie from then on, or "Authorization: Bearer".
        local: only answer requests whose host is this machine's loopback name.
    """

    def __init__(self, app: Asgi, *, token: str | None, local: bool) -> None:
        self.app, self.token, self.local = app, token, local

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await self._refuse(scope, send, *refusal)
            return
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if self.token and scope["type"] == "http" and scope["method"] == "GET" and "token" in query:
            await self._admit(scope, send, query)
            return
        await self.app(scope, receive, _with_policy(send) if scope["type"] == "http" else send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self.local and not is_loopback(host):
            return 421, "JADE Studio answers requests to localhost only."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return 403, "JADE Studio answers its own pages only."
        if self.token and not self._shown(scope, headers):
            return 401, "JADE Studio needs its token: open the address that `jade studio` printed."
        return None

    def _shown(self, scope: Scope, headers: dict[str, str]) -> bool:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        shown = [bearer if kind.lower() == "bearer" else ""]
        shown += parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        shown.append(cookie.value if cookie else "")
        return any(hmac.compare_digest(s.encode(), (self.token or "").encode()) for s in shown)

    async def _admit(self, scope: Scope, send: Any, query: dict[str, list[str]]) -> None:
        """Put the token into a cookie and out of the address, where it would be seen and shared."""
        rest = urlencode({k: v for k, v in query.items() if k != "token"}, doseq=True)
        where = scope["path"] + (f"?{rest}" if rest else "")
        if where.startswith("//"):  # would be another host's address
            where = "/"
        cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        headers = [(b"location", where.encode("latin-1", "replace")), (b"set-cookie", cookie.encode("latin-1"))]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, scope: Scope, send: Any, status: int, told: str) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": told.encode()})


def _with_policy(send: Any) -> Any:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            extra = [
                (b"content-security-policy", POLICY.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
            ]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return sending
