import pytest

from mcbn.report import figures


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without their figures, for tests of the words and numbers around them."""
    monkeypatch.setattr(figures, "render", lambda draw, **_: "<svg></svg>")
