"""M-ASK: Plan, Search, Summary, Update and Answer roles over a knowledge state (arXiv 2601.04703)."""
