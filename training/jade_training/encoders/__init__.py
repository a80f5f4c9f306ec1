"""The room where text encoders learn from graded labels: one encoder that retrieves and reranks (E2Rank).

Invariant: prompts, tokens and pooling are those of the runtime (`jade_graph.retrieval`); nothing is worded twice.
"""
