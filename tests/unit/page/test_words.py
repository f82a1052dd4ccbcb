from __future__ import annotations

import pytest

from neurostorm_bids.page.words import format_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (4096, "4096"),
        (451464, "451,464"),
        (0.123456, "0.1235"),
        (2.0, "2"),
        (1e-5, "1e-05"),
    ],
)
def test_numbers_have_no_more_digits_than_can_be_read(value, text):
    assert format_number(value) == text
