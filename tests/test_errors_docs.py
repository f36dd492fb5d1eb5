"""``docs/reference/errors.md`` lists every error that ai-mux makes, as it makes it."""

from pathlib import Path

import pytest

from ai_mux import errors

ROWS = {
    cells[0]: cells
    for line in (Path(__file__).parent.parent / "docs/reference/errors.md").read_text().splitlines()
    if (cells := [cell.strip().strip("`") for cell in line.strip("|").split("|")])[0].isdigit()
}
MADE = {
    str(error.status): error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, errors.RequestError) and error is not errors.RequestError
}


def test_every_error_is_listed_and_nothing_else():
    assert ROWS.keys() == MADE.keys()


@pytest.mark.parametrize("status", MADE)
def test_a_row_says_what_the_error_carries(status):
    error, (_, _, anthropic, openai, code, retry) = MADE[status], ROWS[status]
    assert (anthropic, openai, code) == (error.anthropic_type, error.openai_type, error.openai_code)
    assert retry.startswith("true" if error.retry else "false")
