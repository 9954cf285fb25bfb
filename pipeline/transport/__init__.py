"""Moves files between this machine and others: each checked by its digest as it arrives."""
