"""The commands that learn: `jade improve`, `compare`, `train`, `sft`, `microworld pretrain`, and the demo's part.

Invariant: thin. A command parses its options, calls the room that does the work, and prints what came out.
"""
