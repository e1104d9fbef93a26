"""Runs of these tests draw no curves."""

import pytest


@pytest.fixture(autouse=True)
def _no_trackers(monkeypatch):
    monkeypatch.setenv("MIM_TRACKERS", "")
