"""Pictures of a run: where everything stands as plain data, then SVG, Mermaid text or one self-contained page.

Invariant: drawing only reads, and needs nothing but the standard library. Text from documents and models is text in
every output: it is escaped where it is written, and no output has a place where it could be markup or script.
"""

from __future__ import annotations

from jade_graph.picture.layout import Box, Edge, Group, Picture, lay_out
from jade_graph.picture.mermaid import mermaid
from jade_graph.picture.page import page
from jade_graph.picture.svg import tree_svg

__all__ = ["Box", "Edge", "Group", "Picture", "lay_out", "mermaid", "page", "tree_svg"]
