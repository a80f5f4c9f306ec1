"""Pages as browsers see them: nothing that a reader sees is lost, whatever is left open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.retrieval.html import TooDeepError, html_to_markdown


def test_html_keeps_what_a_reader_sees() -> None:
    page = html_to_markdown(
        "<html><head><title>T</title><style>p{}</style></head><body><nav>Menu</nav><script>x()</script>"
        "<h2>Part <b>one</b></h2><p>Hello\n big&nbsp;<i>world</i>.</p><ul><li>a<li>b</ul>"
        "<table><tr><th>k</th><td>v</td></tr></table><pre># code\n  y</pre>tail"
    )
    assert page.title == "T"
    assert page.text == "## Part one\n\nHello big world.\n\na\nb\n\nk v\n\n```\n# code\ny\n```\n\ntail"


def test_html_without_a_title_takes_its_first_heading() -> None:
    assert html_to_markdown("<h1>Head</h1>x").title == "Head"
    assert html_to_markdown("just text").title == ""


def test_furniture_is_left_out() -> None:
    assert html_to_markdown("<nav><svg>menu</svg></nav><p>body").text == "body"


@given(st.text(alphabet="<>/abph1!-&;'\" =", max_size=80))
def test_broken_markup_never_raises(html: str) -> None:
    assert isinstance(html_to_markdown(html).text, str)


UNCLOSED = ("button", "svg", "footer", "nav", "select", "noscript", "title", "textarea", "iframe", "noembed", "xmp")


@pytest.mark.parametrize("tag", UNCLOSED)
def test_what_is_never_closed_hides_nothing_after_it_and_is_named(tag: str) -> None:
    page = html_to_markdown(f"<p>before<{tag}>in it<p>after<p>end</body></html>")
    for word in ("before", "after", "end"):
        assert word in page.text
    assert f"<{tag}> is not closed" in page.note
    closed = html_to_markdown(f"<p>before<{tag}>in it</{tag}><p>after<p>end</body></html>")
    assert closed.note == ""
    assert "after" in closed.text


@pytest.mark.parametrize("tag", ["script", "style"])
def test_code_that_is_never_closed_is_no_text_and_named(tag: str) -> None:
    page = html_to_markdown(f"<p>before<{tag}>let x<p>after")
    assert page.text == "before"
    assert f"<{tag}> is not closed: what follows it is left out" in page.note


def test_tags_in_comments_and_scripts_open_nothing() -> None:
    page = html_to_markdown("<!-- <footer> --><script>'<nav>'</script><p>a<nav>menu</nav><p>b")
    assert (page.text, page.note) == ("a\n\nb", "")


def test_xhtml_closes_elements_within_their_start_tag() -> None:
    page = html_to_markdown('<?xml version="1.0"?><html><head><title/><script src="a"/></head><p/>x<br/>y', xml=True)
    assert (page.text, page.note) == ("x\ny", "")


def test_text_that_looks_like_markdown_is_no_heading() -> None:
    page = html_to_markdown("<p># 1<p>a<br>---<p>&lt;script&gt;<h2>Yes</h2><pre>```\n# c\n```</pre>")
    assert page.text == "\\# 1\n\na\n\\---\n\n\\<script>\n\n## Yes\n\n````\n```\n# c\n```\n````"


@pytest.mark.parametrize("part", ["<", "<!--", "</", "<title>", "<iframe>", "<p><b>", "&#", "<pre>"])
def test_no_page_takes_the_square_of_its_length(part: str) -> None:
    assert isinstance(html_to_markdown(part * 3000 + "x").text, str)


def test_elements_without_end_are_refused() -> None:
    with pytest.raises(TooDeepError):
        html_to_markdown("<div>" * 5000)
