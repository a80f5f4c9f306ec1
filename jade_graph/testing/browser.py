"""A headless Chromium for tests and benchmarks, driven by the DevTools protocol.

Invariant: every request that the page makes is in `requests`; whatever opened the browser closes it and its profile.
Nothing waits a fixed time: `wait` asks until a condition holds, and says what it was when it does not.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, " ": 32, "Enter": 13, "Escape": 27, "Tab": 9}
PATIENCE_S = 300.0
"""Seconds that anything may take: a crowded machine is slow, not broken, and what is quick waits for nothing."""


def find() -> str | None:
    """The Chromium of this machine: `JADE_CHROMIUM`, else the first on the path; None where there is none."""
    named = os.environ.get("JADE_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page in a browser of its own; a context manager.

    Args:
        size: of the window, width and height in pixels.

    Raises:
        RuntimeError: there is no Chromium, or it does not start.
    """

    def __init__(self, *, size: tuple[int, int] = (1280, 860), dark: bool = False) -> None:
        import websocket

        program = find()
        if program is None:
            raise RuntimeError("there is no Chromium on this machine (apt-get install chromium, or JADE_CHROMIUM=PATH)")
        self._profile = tempfile.mkdtemp(prefix="jade-browser-")
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
            "--disable-default-apps", "--disable-dev-shm-usage", "--remote-allow-origins=*", "--hide-scrollbars",
            f"--user-data-dir={self._profile}", f"--window-size={size[0]},{size[1]}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        try:
            self._socket = websocket.create_connection(self._page(), timeout=PATIENCE_S, suppress_origin=True)
        except BaseException:
            self.close()
            raise
        self._next = 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(*size)
        self.dark(dark)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _page(self) -> str:
        """The address of the page's socket, once the browser listens."""
        found = Path(self._profile) / "DevToolsActivePort"
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"Chromium ended with status {self._process.returncode}")
            if found.is_file() and len(lines := found.read_text().split()) >= 1:
                with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json", timeout=30) as reply:
                    pages = [p for p in json.load(reply) if p["type"] == "page"]
                if pages:
                    return str(pages[0]["webSocketDebuggerUrl"])
            time.sleep(0.05)
        raise RuntimeError(f"Chromium did not listen within {PATIENCE_S:g} s")

    # --- the protocol -------------------------------------------------------------------------------------------------
    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._next += 1
        mine = self._next
        self._socket.send(json.dumps({"id": mine, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == mine:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return dict(message["result"])
            self._heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(params["url"])
        elif method == "Runtime.exceptionThrown":
            told = params["exceptionDetails"]
            self.errors.append(str(told.get("exception", {}).get("description") or told.get("text")))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    # --- what a person does -------------------------------------------------------------------------------------------
    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression on the page; promises are awaited."""
        reply = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in reply:
            told = reply["exceptionDetails"]
            raise RuntimeError(f"{script}: {told.get('exception', {}).get('description') or told.get('text')}")
        return reply["result"].get("value")

    def wait(self, script: str, seconds: float = PATIENCE_S) -> Any:
        """Ask until the expression is true; returns its value. Raises `TimeoutError`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if value := self.run(script):
                    return value
            except RuntimeError as error:  # the page is being replaced
                if "Cannot find context" not in str(error) and "navigated" not in str(error):
                    raise
            time.sleep(0.02)
        seen = self.text()[:1500]
        raise TimeoutError(f"not within {seconds:g} s: {script}\nerrors of the page: {self.errors}\n{seen}")

    def text(self) -> str:
        return str(self.run("document.body ? document.body.innerText : ''"))

    def click(self, selector: str) -> None:
        """A real click in the middle of the first element that matches; it is waited for and scrolled to."""
        found = json.dumps(selector)
        self.wait(f"!!document.querySelector({found})")
        self.run(f"document.querySelector({found}).scrollIntoView({{block: 'center', inline: 'center'}})")
        x, y = self._still(found)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _still(self, found: str) -> tuple[float, float]:
        """The middle of an element once it has stopped moving: what slides in is not where it was a frame ago."""
        script = f"(() => {{ const r = document.querySelector({found}).getBoundingClientRect(); "
        script += "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        before: list[float] = []
        until = time.monotonic() + 10
        while (now := self.run(script)) != before and time.monotonic() < until:
            before = now
            self.run("new Promise((next) => setTimeout(() => requestAnimationFrame(next), 60))")
        return now[0], now[1]

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        more = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            sent = more if kind == "keyDown" else {}
            code = KEYS[key]
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **sent)

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, on: bool = True) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def strangers(self, *ours: str) -> list[str]:
        """Requests that went anywhere but to addresses that begin so, or to the page's own data."""
        return [u for u in self.requests if not u.startswith((*ours, "data:", "blob:", "about:", "chrome:"))]


__all__ = ["Browser", "find"]
