"""Figures as in the paper: each module draws one kind of figure from arrays and names."""
