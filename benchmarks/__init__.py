"""Commands that print the figures which the README and the docs quote."""
