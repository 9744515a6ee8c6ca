"""Commands: each file holds the one function of its name."""
