"""Chat templates are strangers' programs: they render what transformers renders, and they end."""

from __future__ import annotations

import pytest

from jade_graph.backbones.templates import ChatTemplate, TemplateRaisedError
from jade_graph.errors import BackboneError

SAID = [{"role": "user", "content": "Who wrote  Dune? " * 40}]
GROWS = "{%% set n = namespace(x='ab') %%}{%% for i in range(99) %%}%s{%% endfor %%}"

HOSTILE = {
    "loops in loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "only for long prompts": "{% if messages[0].content|length > 500 %}{% for a in range(9999) %}"
    "{% for b in range(9999) %}{% endfor %}{% endfor %}{% endif %}",
    "characters": "{% for a in messages[0].content * 99 %}{% for b in messages[0].content %}{% endfor %}{% endfor %}",
    "recursive loops": "{% for x in range(9999) recursive %}{{ loop(range(9999)) }}{% endfor %}",
    "macros without end": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "macros that double": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "powers": "{{ 9 ** 9999999 }}",
    "products": GROWS.replace("'ab'", "9") % "{% set n.x = n.x * n.x %}",
    "texts times numbers": "{{ ('x' * 100000) * 100000 }}",
    "doubled by ~": GROWS % "{% set n.x = n.x ~ n.x %}",
    "doubled by +": GROWS % "{% set n.x = n.x + n.x %}",
    "doubled in a block": GROWS % "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}",
    "lists in lists": GROWS.replace("'ab'", "[1]") % "{% set n.x = [n.x, n.x] %}" + "{{ n.x }}",
    "mappings in mappings": GROWS.replace("'ab'", "{}") % "{% set n.x = dict(a=n.x, b=n.x) %}" + "{{ n.x }}",
    "wide by a filter": "{{ 'x'|center(1000000000) }}",
    "wide by a format": "{{ '%1000000000d' % 1 }}",
    "wide by a format's argument": "{{ '%*d' % (1000000000, 1) }}",
    "wide by the filter format": "{{ '%1000000000d'|format(1) }}",
    "wide by the method format": "{{ '{:1000000000}'.format(1) }}",
    "wide by a method": "{{ 'x'.zfill(1000000000) }}",
    "replaced": "{% set x = 'a' * 100000 %}{{ x.replace('a', x) }}{{ x|replace('', x) }}",
    "joined": "{% set x = 'a' * 100000 %}{{ (range(9999)|list)|join(x) }}",
    "rounded": "{{ 1.5|round(1000000000, 'ceil') }}",
    "compared": "{% set x = range(99999)|list %}{% for i in range(9999) %}{% if -1 in x %}{% endif %}{% endfor %}",
    "tested": "{% set x = range(99999)|list %}{% for i in range(9999) %}{% if -1 is in x %}{% endif %}{% endfor %}",
    "sliced": "{% set x = 'a' * 100000 %}{% for i in range(9999) %}{% set y = x[::-1] %}{% endfor %}",
    "literal": "{% for i in range(9999) %}" + "y" * 50_000 + "{% endfor %}",
    "lazy filters": "{% for i in range(9999) %}{{ range(99999)|map('string')|list|length }}{% endfor %}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_templates_that_do_not_end_are_refused(name: str) -> None:
    with pytest.raises(BackboneError) as caught:
        ChatTemplate(HOSTILE[name], {}).render(SAID)
    assert caught.value.error_code == "BACKBONE_TEMPLATE"


def test_nothing_is_computed_while_a_template_is_compiled() -> None:
    ChatTemplate("{% if false %}{{ 'x'|center(1000000000) }}{{ 9 ** 9 ** 9 }}{% endif %}", {}).render(SAID)


USUAL = """{%- if messages[0]['role'] == 'system' %}
{%- set system = messages[0]['content']|trim %}{% set rest = messages[1:] %}
{%- else %}{% set system = 'You help.' %}{% set rest = messages %}{% endif %}
{%- set ns = namespace(count=0, last=none) %}
{%- macro turn(message, ends=true) %}
<|{{ message.role }}|>{{ '\\n' ~ message['content'].strip() + ('<end>' if ends else '') }}{% endmacro %}
{{- bos_token + '<|system|>' + system -}}
{%- for message in rest %}{% set ns.count = ns.count + 1 %}{% if loop.last %}{% set ns.last = loop.index %}{% endif %}
{%- if message.content is string and message['role'] in ['user', 'assistant'] %}{{ turn(message, not loop.last) }}
{%- elif message.role == 'tool' %}{{ message|tojson(indent=2) }}{% continue %}{% endif %}
{% generation %}!{% endgeneration %}{% endfor %}
{{- ns.count }} {{ ns.last }} {{ rest|map(attribute='role')|join(', ') }} {{ loop is defined }}
{{ rest|selectattr('role', 'equalto', 'user')|list|length }} {{ {'a': [1, 2]}.items()|list }} {{ 7 // 2 * 2 ** 3 }}
{{- '%s and %d' % ('one', 2) }} {{ messages[::-1][0].role.upper() }} {{ [1, 2] + [3] }}
{{- (messages[-1].content.split(' ')|first).replace('W', 'w') }} {{ undefined_thing is defined }}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


@pytest.mark.parametrize("opens", [True, False])
def test_usual_templates_render_as_in_transformers(opens: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    said = [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": " Who?\n"},
        {"role": "assistant", "content": "Ann"},
        {"role": "tool", "content": {"found": ["é", 1]}},
        {"role": "user", "content": "Who wrote  Dune? " * 500},
    ]
    theirs, _ = render_jinja_template([said], chat_template=USUAL, add_generation_prompt=opens, bos_token="<s>")
    assert ChatTemplate(USUAL, {"bos_token": "<s>"}).render(said, opens=opens) == theirs[0]


def test_what_a_template_raises_is_told() -> None:
    with pytest.raises(TemplateRaisedError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}", {}).render(SAID)
