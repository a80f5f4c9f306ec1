"""Who may speak to the studio.

Invariant: on this machine alone, only requests that name this machine as their host are answered, so that no page of
another site can reach it by a name of its own; what a page of another site asks for is refused, be it a picture's GET.
With a token, only requests that carry it are answered. WebSockets are held to all of it, and to their page's origin.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from jade_graph.errors import UsageError
from jade_graph.settings.addresses import calls_loopback, is_loopback

Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
COOKIE = "jade_studio"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: wss:; object-src 'none'; "
    "base-uri 'self'; frame-ancestors 'none'; form-action 'self'"
)


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
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == b"host"]
        if self.local and not (len(hosts) == 1 and calls_loopback(hosts[0])):
            return 421, "JADE Studio answers requests to localhost only."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return 403, "JADE Studio answers its own pages only."
        if scope["type"] == "http" and self._from_elsewhere(scope, headers):
            return 403, "JADE Studio answers its own pages only: open its address by itself."
        if self.token and not self._shown(scope, headers):
            return 401, "JADE Studio needs its token: open the address that `jade studio` printed."
        return None

    def _from_elsewhere(self, scope: Scope, headers: dict[str, str]) -> bool:
        """Whether another site's page asks, e.g. by a picture or a script; to follow a link to "/" is fine."""
        site = headers.get("sec-fetch-site")
        if site is None:  # an old browser, or none
            referrer = headers.get("referer")
            return bool(referrer) and urlsplit(str(referrer)).netloc != headers.get("host")
        followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        harmless = scope["method"] == "GET" and scope["path"] == "/" and not scope.get("query_string")
        return site not in ("same-origin", "none") and not (followed and harmless)

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
