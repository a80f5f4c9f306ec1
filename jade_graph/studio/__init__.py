"""JADE Studio: a local page that shows runs, steps through them, forks and compares them.

Invariant: it reads the run store and starts runs; it changes none. It listens on this machine alone unless it was told
otherwise, and then only for whoever has the token. Nothing is asked of the network.
"""
