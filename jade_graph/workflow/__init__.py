"""One question becomes one run: plans and loops, the blackboard, the LangGraph state machine, and the engine around it.

Invariant: models, corpora and recorders are handed in; roles, loops and presets are found by name. It knows LangGraph,
and no LangChain `Runnable`, no settings, no run store and no registry; what it needs of them is a protocol of
`jade_graph.types`.
"""
