"""The package passes stcore's contract tests."""

import pytest

import stcore.testing

stcore_example = pytest.importorskip("stcore_example", reason="run pip install --no-deps -e tests/plugin_package")


def test_the_method():
    from stcore_example.method import AlpConfig

    stcore.testing.check_method(AlpConfig(steps=3))


def test_the_attack():
    stcore.testing.check_attack("corner", forwards=0, backwards=0)


def test_the_divergence():
    stcore.testing.check_divergence("hellinger")


def test_the_data():
    stcore.testing.check_dataset("stripes")


def test_the_tracker():
    stcore.testing.check_tracker("lines")
