"""Models of a hub that every test makes for itself."""

import pytest

from accord.models import places


@pytest.fixture(autouse=True)
def asked_anew():
    """What the hub of another test said is forgotten."""
    places._config.cache_clear()
