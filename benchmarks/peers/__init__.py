"""The peers' sides: programs for environments of their own, which have nothing of the package."""
