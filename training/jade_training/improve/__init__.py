"""The learning loop: roll out, export, train, evaluate, again; and what watches over it."""
