"""One question becomes one run: plans and loops, the blackboard, the LangGraph state machine, and the engine around it.

Invariant: everything that it works with is handed in. It knows LangGraph, and no LangChain `Runnable`, no settings, no
run store and no registry; what it needs of them is a protocol of `jade_graph.types`.
"""
