"""Reproduces the paper's tables: their cells, the steps that fill them, and the results."""
