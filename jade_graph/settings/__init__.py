"""What can be set, where it was set, and what a figure was made with.

Invariant: a setting is known by its dotted name alone, and its origin is known too; nothing here opens what it names.
"""
