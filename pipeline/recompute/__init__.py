"""Recomputes some targets of a cache from its videos, and judges them by measured noise."""
