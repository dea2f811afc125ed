"""Accord: the helpful-and-harmless loop for language models, measured against known truth."""

__version__ = "0.1.0"
