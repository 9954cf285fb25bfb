"""Names that files from others may contain."""

from __future__ import annotations

HOSTILE_NAMES = ("$\\frac{1$", "a\nb\x00\u202e", "猫" * 200, "_x", "", "🎬 x^2 \\alpha")
