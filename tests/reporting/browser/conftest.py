"""The report in a real browser."""

from tests.fixtures.chromium import chromium, open_page, pictures

__all__ = ["chromium", "open_page", "pictures"]
