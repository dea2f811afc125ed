"""AI labelers: a typed question → a probability for each of its answers."""
