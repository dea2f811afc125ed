"""Every table of docs/world.md that scores replies says what the judges say."""

import re
from pathlib import Path

import pytest

from accord.records import Turn
from accord.world.judges import judge

PAGE = Path(__file__).parents[2] / "docs" / "world.md"


def examples():
    """(request, reply, {score: number}) of each row; a request that is left out is that of the row before."""
    fields: list[str] = []
    request = ""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")] if line.startswith("|") else []
        if cells[:2] == ["request", "reply"]:
            fields = cells[2:]
        elif not cells:
            fields = []
        elif fields and not set(line) <= set("|-"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            request = cells[0] or request
            yield request, cells[1], dict(zip(fields, cells[2:], strict=True))


def number(text):
    return float(text.replace("−", "-"))


@pytest.mark.parametrize(("request_", "reply", "scores"), list(examples()))
def test_the_page_scores_as_the_judges_do(request_, reply, scores):
    gold = judge((Turn("user", request_),), reply)
    for field, said in scores.items():
        assert getattr(gold, field) == pytest.approx(number(said), abs=0.005), (field, said)


def test_the_page_has_examples():
    assert len(list(examples())) >= 18
