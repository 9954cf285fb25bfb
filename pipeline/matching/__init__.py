"""Finds the videos of a received cache among a receiver's own copies, by perceptual hashes."""
