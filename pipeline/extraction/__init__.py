"""Decode, forward, encode and write: what one extraction worker does."""
