import pytest

from mcbn.drawing import rendering


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without their figures, for tests of the words and numbers around them."""
    monkeypatch.setattr(rendering, "render", lambda draw, **_: "<svg></svg>")
