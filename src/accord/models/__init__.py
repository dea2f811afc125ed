"""Hugging Face models, thinly: load and save, packed forward, scalar heads, sampling. Roles are views."""
