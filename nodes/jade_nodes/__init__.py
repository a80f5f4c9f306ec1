"""The roles, a file each, and the presets made of them.

Invariant: a role is pure. It renders a view as a prompt and reads an action; it knows no model, no graph and no clock.
To add one: copy `rewrite.py`, change prompt and parser, name it under the entry-point group `jade.roles`, and run
`jade_graph.testing.roles.check_role` on it.
"""
