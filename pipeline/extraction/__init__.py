"""Extraction: decode videos, run the teachers, encode the targets and write them."""
