"""The experiment: joint learning against decoupled, static and no learning, from one start under one budget.

Invariant: arms differ in what is compared and in nothing else, and are measured on questions that none has seen.
"""
