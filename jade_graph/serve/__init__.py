"""`jade serve`: the graph behind HTTP, in the shape that OpenAI's clients speak.

Invariant: a request is refused with a stable code, or is one run of the graph from start to end; the server changes
nothing about how a run goes. Importing this package loads neither fastapi nor torch.
"""
