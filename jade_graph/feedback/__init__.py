"""What users did with the passages that they were shown, and how relevant that says the passages are.

Invariant: whoever used an app is a pseudonym here, and nothing leaves the machine. An estimate comes with its interval
and with what it was made of; what the events cannot tell is said, never guessed.
"""
