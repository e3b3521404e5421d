"""Prices by model."""

from pathlib import Path

import pytest

from nid_plugin.completion.prices import Price, price_of, read_prices
from plugin_common.errors import UserError


def test_what_a_request_costs() -> None:
    price = Price(input=10, output=30, batch=0.5)
    assert price.of(1_000_000, 0) == 10
    assert price.of(500, 1000) == pytest.approx(0.035)
    assert price.of(500, 1000, batch=True) == pytest.approx(0.0175)
    assert not price.free
    assert Price(0, 0).free


def test_the_shipped_prices_know_the_paper_s_teachers() -> None:
    prices = read_prices()
    assert price_of("gpt-4-turbo", prices) == Price(10, 30, 0.5)
    assert price_of("gpt-3.5-turbo", prices) == Price(0.5, 1.5, 0.5)


def test_a_dated_version_has_the_price_of_its_model() -> None:
    prices = {"a": Price(1, 2), "a-2024-04-09": Price(3, 4)}
    assert price_of("a-2024-04-09", prices) == Price(3, 4)
    assert price_of("a-2025-01-01", prices) == Price(1, 2)
    assert price_of("a-mini", prices) is None


@pytest.mark.parametrize(
    "text",
    [
        "['m']\ninput = 1",
        "['m']\ninput = 1\noutput = -2",
        "['m']\ninput = 1\noutput = inf",
        "['m']\ninput = true\noutput = 1",
        "m = 3",
        "[[",
        "['m']\ninput='1'\noutput=1",
        "['m']\ninput = 1\noutput = 2\nbatch = 3",
        "['m']\ninput = 1\noutput = 2\nouput = 3",
    ],
)
def test_a_file_of_another_form(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"prices\.toml.*(form|expected|valid TOML)"):
        read_prices(file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_prices(tmp_path / "none")
