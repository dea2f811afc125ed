"""Mechanics that know nothing of feedback: the supervised loop, the optimizer, ranks, checkpoints."""
