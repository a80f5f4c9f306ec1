"""A run as one self-contained page: to look at, step through and send to somebody.

Invariant: the page asks for nothing from anywhere, and its content policy lets nothing run but our own script, by its
hash: whatever a document or a model wrote is data, and is put on the page as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from jade_graph.picture.details import Pieces, details
from jade_graph.picture.layout import lay_out
from jade_graph.picture.svg import asset
from jade_graph.picture.text import xml
from jade_graph.picture.view import credited, view
from jade_graph.types import Run


def page(run: Run, *, pieces: Pieces | None = None) -> str:
    """The page.

    Args:
        pieces: spells token ids; without it, tokens are shown by number.
    """
    run = credited(run)
    data = {"view": view(run), "details": {b.key: details(run, b.key, pieces=pieces) for b in lay_out(run).boxes}}
    script = asset("viewer.js") + "\njadeViewer.fromPage();\n"
    style = asset("picture.css") + asset("viewer.css")
    policy = (
        f"default-src 'none'; script-src 'sha256-{_hash(script)}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{xml(run.question)}</title>\n<style>{style}</style></head>\n"
        '<body class="jg-theme jv-page"><div id="jade-run" class="jv-alone"></div>\n'
        f'<script type="application/json" id="jade-data">{_json(data)}</script>\n'
        f"<script>{script}</script></body></html>\n"
    )


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")


__all__ = ["page"]
