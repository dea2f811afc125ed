"""`accord constitution --from_votes`: tables in the shape of Polis' exports, and principles that all groups share."""

import csv

import pytest

from accord.cli import main
from accord.disk import read_json
from accord.labelers.constitution_file import read_constitution
from accord.run import verify


def table(path, rows):
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.fixture
def tables(tmp_path):
    texts = ["Be kind.", "Obey the first group.", "Obey the second group.", "Tell the truth.", "Left out."]
    statements = [
        {"comment-id": i, "moderated": -1 if text == "Left out." else 1, "comment-body": text}
        for i, text in enumerate(texts)
    ]
    votes = []
    for i in range(30):
        first = i < 20
        own, other = ("1.0", "-1.0") if first else ("-1.0", "1.0")
        votes.append(
            {"participant": i, "group-id": 0 if first else 1, "0": "1.0", "1": own, "2": other}
            | {"3": "1.0" if i % 4 else "0.0", "4": "1.0"}
        )
    votes.append({"participant": 99, "group-id": "", "0": "-1.0", "1": "", "2": "", "3": "", "4": ""})
    return table(tmp_path / "votes.csv", votes), table(tmp_path / "statements.csv", statements), tmp_path


def made(tables, keep=2):
    votes, statements, folder = tables
    out = folder / "run"
    line = f"constitution --make principles --from_votes {votes} --statements {statements} --keep {keep} --out {out}"
    code = main(line.split())
    return code, out


def test_what_all_groups_agree_with_becomes_principles(tables, capsys):
    code, out = made(tables)
    assert code == 0
    verify(out)
    found = read_constitution(str(out / "constitution.yaml"))
    assert [p.text for p in found.principles] == ["Be kind.", "Tell the truth."]
    assert len(found.revising()) == len(found.comparing()) == 2 and "Be kind." in found.principles[0].critique
    facts = read_json(out / "consensus.json")
    assert facts["participants"] == {"0": 20, "1": 10} and facts["without_group"] == facts["moderated"] == 1
    assert facts["chosen"][0]["consensus"] == pytest.approx(21 / 22 * 11 / 12)
    lost = {group: [row["text"] for row in found["lost"]] for group, found in facts["groups"].items()}
    assert lost == {"0": ["Obey the first group."], "1": ["Obey the second group."]}
    assert "group 0, 20 people" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda text: text.replace("-1.0", "maybe", 1), "'maybe' is no vote"),
        (lambda text: text.replace("group-id", "team"), "no column group-id"),
        (lambda text: "\n".join(text.splitlines()[:21]), "1 groups in group-id"),
        (lambda text: text.splitlines()[0], "no rows"),
    ],
)
def test_votes_that_can_not_be_counted_are_refused(tables, spoil, says, capsys):
    path = tables[2] / "votes.csv"
    path.write_text(spoil(path.read_text()))
    code, out = made(tables)
    assert code == 2 and says in capsys.readouterr().err and not out.exists()


def test_more_principles_than_statements_are_refused(tables, capsys):
    code, _ = made(tables, keep=9)
    assert code == 2 and "--keep 9" in capsys.readouterr().err
