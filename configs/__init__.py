"""Ready configurations (YAML). They are installed with the package: the demo reads its own."""
