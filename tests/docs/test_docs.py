"""The pages say what the code does: generated parts, commands, links, formulas, examples."""

import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
from pathlib import Path

import generate
import pytest

import accord.objectives
from accord import cli, parsing
from accord.claims.runner import CLAIMS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^(?:\$ )?accord +(\S.*)$")


def page(name):
    return (ROOT / "docs" / name).read_text()


def code_blocks(text):
    """(language, content) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def headings(text):
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def command_lines():
    """Every `accord …` line of the pages, with continued lines joined and comments cut."""
    found = []
    for path in PAGES:
        text = path.read_text()
        pieces = [block for language, block in code_blocks(text) if language in ("", "bash", "console", "sh")]
        pieces += re.findall(r"`(accord [a-z][^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        for piece in pieces:
            for line in piece.replace("\\\n", " ").splitlines():
                for command in re.split(r" && | ; ", line.split(" # ")[0]):
                    if match := COMMAND.match(command.strip()):
                        found.append(pytest.param(match[1], id=f"{path.name}: accord {match[1][:60]}"))
    return found


def made_whole(command, words):
    """A line of prose leaves out what it is not about: add what is required, put values where words stand for them."""
    given = {word.split(".")[0].split("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    config, positional = cli.COMMANDS[command].config, cli.COMMANDS[command].positional
    for name, field in config.model_fields.items():
        if name == positional and field.is_required() and not (words and not words[0].startswith("--")):
            words = ["something", *words]
        elif (
            (
                field.is_required()
                or (name == "data" and command != "collect" and not given & {"from_votes", "behaviour"})
            )
            and name not in given
            and name != positional
        ):
            words += [
                f"--{name}.some"
                if "dict" in str(field.annotation) and name in ("rewards", "models", "tasks", "probes", "questions")
                else f"--{name}",
                "some",
            ]
    return words


@pytest.mark.parametrize("name", list(generate.PAGES))
def test_the_generated_pages_are_up_to_date(name):
    assert page(name) == generate.rewritten(name), f"docs/{name} is out of date: run python tests/docs/generate.py"


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_a_section_with_an_example_and_its_help(command):
    section = page("commands.md").partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    assert f"accord {command}" in section and "usage: accord " + command in section
    for knob in cli.COMMANDS[command].config.model_fields:
        assert knob in section, f"--{knob} is missing"


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_knob_is_described_and_no_percent_sign_is_doubled(command):
    for name, field in cli.COMMANDS[command].config.model_fields.items():
        assert field.description and "%%" not in field.description, name
    text = parsing.build_parser(command).format_help()
    assert "%%" not in text and "%(" not in text
    everyday = parsing.build_parser(command, every=False).format_help()
    assert len(everyday.splitlines()) <= 80, "more than a screen and a half"


def test_the_own_knobs_of_a_stage_come_first_in_its_help():
    text = parsing.build_parser("ppo").format_help()
    order = [text.index(word) for word in ("knobs:", "--model", "--rewards", "training:", "--clip_norm", "--out")]
    assert order == sorted(order)


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_of_the_pages_parses(line):
    line = re.sub(r"(?<!')\[.*?\]|…|\.\.\.", "", line)  # what may be left out; a list in quotes may not
    line = re.sub(r"small\|medium\|large", "small", line)
    line = re.sub(r"(?<=--seeds )N\b|\bNUMBER\b", "3", line)
    words = shlex.split(line)
    if words[0] in ("COMMAND", "STAGE") or words[0].startswith("-"):
        return
    count = 2 if " ".join(words[:2]) in cli.COMMANDS else 1
    command = " ".join(words[:count])
    assert command in cli.COMMANDS, line
    if "--help" in words:
        return
    assert parsing.parse(command, made_whole(command, words[count:])) is not None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_relative_link_resolves(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        where = (path.parent / file) if file else path
        assert where.exists(), f"{path.name}: {target}"
        if anchor and where.suffix == ".md":
            assert anchor in headings(where.read_text()), f"{path.name}: {target}"


@pytest.mark.parametrize("path", [p for p in PAGES if ">>> " in p.read_text()], ids=lambda path: path.name)
def test_the_worked_examples_are_right(path):
    result = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert result.attempted and not result.failed


def test_flow_and_objectives_have_worked_examples():
    for name in ("flow.md", "objectives.md"):
        assert ">>> " in page(name)


def test_the_numbers_of_the_prose_example_are_those_of_its_doctest():
    """Redone here without the package: the text must be right, not only the code below it."""
    from math import exp

    kl, beta, score, harm = (0.2, 0.4), 0.1, 1.0, 0.5
    gain_r = (-beta * kl[0] - beta * kl[1] + score, -beta * kl[1] + score)
    gain_c = (beta * kl[0] + beta * kl[1] + harm, beta * kl[1] + harm)
    integral = 2 * exp(0.05 * harm)
    multiplier = integral * exp(harm)
    combined = [(r - multiplier * c) / (1 + multiplier) for r, c in zip(gain_r, gain_c, strict=True)]
    text = page("flow.md")
    assert f"A_r = ({gain_r[0]:.2f}, {gain_r[1]:.2f}); A_c = ({gain_c[0]:.2f}, {gain_c[1]:.2f})" in text
    assert f"= {integral:.4f}; λ = {integral:.4f}·e^0.5 = {multiplier:.4f}" in text
    assert f"= −{-combined[0]:.4f} and" in text and f"= −{-combined[1]:.4f}." in text


def public_functions():
    names = set()
    for module in pkgutil.iter_modules(accord.objectives.__path__):
        loaded = importlib.import_module(f"accord.objectives.{module.name}")
        names |= {
            f"{module.name}.{name}"
            for name, function in inspect.getmembers(loaded, inspect.isfunction)
            if function.__module__ == loaded.__name__ and not name.startswith("_")
        }
    return names


def test_every_objective_is_listed_and_every_listed_one_exists():
    pages = [path.read_text() for path in (ROOT / "docs").glob("*.md")]
    rows = {name for text in pages for name in re.findall(r"^\| `(\w+\.\w+)` \|", text, re.MULTILINE)}
    files = {"json", "jsonl", "md", "parquet", "svg", "yaml"}  # tables of files have rows of the same look
    listed = {name for name in rows if name.rpartition(".")[2] not in files}
    missing, unknown = public_functions() - listed, listed - public_functions()
    assert not missing, (
        f"give each a row `| `module.function` | formula | shapes | source |` in docs/: {sorted(missing)}"
    )
    assert not unknown, f"listed in docs/ and not there: {sorted(unknown)}"


def test_every_claim_is_on_the_page_with_its_statistic_and_rule():
    text = page("claims.md")
    for claim in CLAIMS.values():
        assert f"### {claim.name}\n" in text and claim.statistic in text and claim.rule in text


def test_the_traps_page_has_the_ids_of_the_trap_table():
    ids = [row[0] for row in generate.TRAP_ROW.findall(page("traps.md"))]
    assert len(ids) == len(set(ids)) == 85
    if generate.TRAPS.exists():
        assert set(ids) == set(generate.trap_guards())


def test_the_glossary_gives_every_word_once_and_in_order():
    words = re.findall(r"^\*\*(.+?)\*\*", page("glossary.md"), re.MULTILINE)
    single = [word.strip() for entry in words for word in entry.split(",")]
    assert len(single) == len(set(single)) and words == sorted(words, key=lambda w: w.replace("-", "").lower())
    fixed = (
        "snapshot reference criterion prompt demonstration comparison judgement limit multiplier rollout critic round "
        "labeler tax mask"
    )
    assert {*fixed.split(), "preference model", "cost model", "gold world"} <= set(single)


def test_the_split_shares_of_the_flow_page_are_those_of_the_code():
    from accord.records import SPLITS

    for name, (low, high) in SPLITS.items():
        assert f"| `{name}` | {low:g} – {high:g} |" in page("flow.md")


def test_the_placement_knobs_of_the_commands_page_are_those_of_the_code():
    from accord.run import PLACEMENT

    sentence = re.search(r"but\s+for (.+?), which change no result", page("commands.md"), re.DOTALL)
    assert sentence and set(re.findall(r"`(\w+)`", sentence[1])) == set(PLACEMENT)


def test_the_pages_name_no_place_of_one_machine():
    for path in PAGES:
        assert not re.search(r"(?<![\w.])/(work|tmp|home|root|mnt|Users)/", path.read_text()), path.name
