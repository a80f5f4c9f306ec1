"""The learner of JADE Graph: it reads recorded runs and writes versions of the backbone.

Invariant: importing this package loads nothing; torch and TRL come with the rooms that need them.
"""
