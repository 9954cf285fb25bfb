"""Caches made from other caches: merged, cut, encoded again. Stored values are copied exactly."""
