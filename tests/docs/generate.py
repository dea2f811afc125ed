"""Writes the generated parts of docs/: `python tests/docs/generate.py`. A test compares them with the pages."""

import re
import tomllib
from pathlib import Path

from accord.claims.runner import CLAIMS
from accord.commands import COMMANDS
from accord.parsing import build_parser
from accord.training.rates import MORE, RATES

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN = "<!-- written by `python tests/docs/generate.py` from here -->"
END = "<!-- to here -->"

# command: what the page says about it beyond its help, and a line that runs as it stands, in this order
EXAMPLES: dict[str, tuple[str, str]] = {
    "demo": (
        "Runs every other stage below `--out` and writes `report.html` there.",
        "accord demo --out demo",
    ),
    "data": (
        "Trains nothing; writes what is kept where `--out` says so. [data.md](data.md) says what a source may be.",
        "accord data 'world:comparisons?count=200&seed=1'",
    ),
    "collect": (
        "Needs `pip install 'accord[collect]'`. Serves the page of a store until Ctrl-C, on this machine, and prints "
        "invitations: [feedback.md](feedback.md).",
        "accord collect --snapshots runs/sft/snapshot runs/ppo/snapshot --criterion helpful --criterion harmless \\\n"
        "    --max_new_tokens 40",
    ),
    "collect import": (
        "Needs `pip install 'accord[collect]'`. Makes the store if need be. Modes: [feedback.md](feedback.md).",
        "accord collect import --data 'world:comparisons?count=50&seed=5' --criterion helpful --overlap 2 \\\n"
        "    --database feedback.db",
    ),
    "collect export": (
        "Exit code 2 where nobody has said anything yet. `--data feedback:feedback.db` reads the store without a file.",
        "accord collect export --database feedback.db --shape preference --criterion helpful --out labels.jsonl",
    ),
    "collect quality": (
        "Reads only; runs beside whatever writes. What each number means stands in [feedback.md](feedback.md#quality).",
        "accord collect quality --database feedback.db --out quality.json",
    ),
    "collect backup": (
        "Runs beside whatever writes. SQLite checks the copy before it appears. PostgreSQL has `pg_dump`.",
        "accord collect backup --database feedback.db --out feedback-backup.db",
    ),
    "probe": (
        "Writes `samples.jsonl`, `demonstrations.jsonl`, `comparisons.jsonl` and `judgements.jsonl`; "
        "[honesty.md](honesty.md#training-for-it) says what they are for.",
        "accord probe --model runs/sft/snapshot --questions.facts 'world:prompts/knowledge?count=400&seed=11' \\\n"
        "    --split preference --out runs/probe",
    ),
    "probe head": (
        "Writes a snapshot of the role `knowledge`, for `evaluate honesty --knows`.",
        "accord probe head --model runs/sft/snapshot --data runs/probe/judgements.jsonl --max_length 160 \\\n"
        "    --out runs/head",
    ),
    "check": (
        "Trains nothing and writes nothing; exit code 2 where something on the page is wrong. Every stage asks the "
        "part that needs no weights by itself, before its first step ([flow.md](flow.md)).",
        "accord check runs/sft/snapshot --reference runs/pretrain/snapshot --rewards.helpful runs/helpful/snapshot \\\n"
        "    --data 'world:comparisons?count=200&seed=3' --max_length 200",
    ),
    "plan": (
        "Loads and trains nothing. Prints the plan; with `--out` it leaves `plan.json`, and of every stage a line, "
        "a Slurm script and a Ray job. [scale.md](scale.md) has the cost model, the shapes and the machines.",
        "accord plan 8b --machine 8xh100 --data 'world:comparisons?count=200&seed=3' --batch_size 256",
    ),
    "pretrain": (
        "Writes a policy snapshot. `--batch_size` counts tokens here, and here alone.",
        "accord pretrain --model tiny --data 'world:corpus?count=5000&seed=0' --steps 100 --max_length 160 \\\n"
        "    --out runs/pretrain",
    ),
    "sft": (
        "Writes a policy snapshot.",
        "accord sft --model runs/pretrain/snapshot --data 'world:demonstrations?count=1000&seed=0' \\\n"
        "    --max_length 160 --out runs/sft",
    ),
    "preference": (
        "Writes a preference model or, with `--role cost`, a cost model, and `evaluation.json`. "
        "[preference.md](preference.md) says what it can learn from.",
        "accord preference --model runs/sft/snapshot --data 'world:comparisons?count=1000&seed=0' \\\n"
        "    --criterion helpful --max_length 200 --out runs/helpful\n"
        "accord preference --model runs/sft/snapshot --data 'world:comparisons?count=1000&seed=0' \\\n"
        "    --safety_data 'world:judgements?count=1000&seed=0' --criterion harmless --role cost \\\n"
        "    --max_length 200 --out runs/harmless",
    ),
    "dpo": (
        "Writes a policy snapshot, from comparisons alone: no preference model, no sampling.",
        "accord dpo --model runs/sft/snapshot --data 'world:comparisons?count=1000&seed=0' \\\n"
        "    --criterion helpful --max_length 200 --out runs/dpo",
    ),
    "ppo": (
        "Writes a policy snapshot. Without `--limits` no cost has any influence; a cost without a limit is measured "
        "and nothing else.",
        "accord ppo --model runs/sft/snapshot --data 'world:prompts?count=2000&seed=1' --split policy \\\n"
        "    --rewards.helpful runs/helpful/snapshot --costs.harmless runs/harmless/snapshot \\\n"
        "    --limits.harmless 0 --limit_slices.harmless harmful,red-team \\\n"
        "    --critic shared --steps 10 --max_new_tokens 40 --max_length 200 --out runs/ppo",
    ),
    "redteam": (
        "Writes `redteam.json`, and as prompts what got through; families of attacks that are held out go to a file of "
        "their own, which nothing learns from. [redteam.md](redteam.md) says what the families are.",
        "accord redteam --model runs/ppo/snapshot --data 'world:prompts/harmful?count=200&seed=7' \\\n"
        "    --split evaluation --attacks world --judge gold --max_new_tokens 40 --out runs/redteam",
    ),
    "online": (
        "Writes the policy that was last promoted, and run folders of every step of every round. What the rounds do is "
        "[online.md](online.md).",
        "accord online --model runs/sft/snapshot --data 'world:prompts?count=2000&seed=4' --split policy \\\n"
        "    --labeler preference --scorer runs/helpful/snapshot --rounds 2 --prompts 200 --train.max_length 200 \\\n"
        "    --max_new_tokens 40 --out runs/online\n"
        "accord online --model runs/sft/snapshot --data 'world:prompts?count=6000&seed=4' --rounds 1 \\\n"
        "    --labeler people --judge people --gate docs/rounds.yaml --train.max_length 200 --max_new_tokens 40 \\\n"
        "    --out runs/people",
    ),
    "sample": (
        "Writes `samples.jsonl`.",
        "accord sample --model runs/ppo/snapshot --data 'world:prompts?count=50&seed=2' --samples 2 \\\n"
        "    --max_new_tokens 40 --out runs/sample",
    ),
    "constitution": (
        "Writes `demonstrations.jsonl`, `comparisons.jsonl` or `constitution.yaml`; what it does is "
        "[constitution.md](constitution.md).",
        "accord constitution --model runs/sft/snapshot --constitution world --revisions 2 \\\n"
        "    --data 'world:prompts/red-team?count=200&seed=5' --max_new_tokens 40 --out runs/revised\n"
        "accord constitution --make comparisons --model runs/sft/snapshot --constitution world \\\n"
        "    --data 'world:prompts/red-team?count=200&seed=5' --max_new_tokens 40 --out runs/compared\n"
        "accord constitution --make principles --from_votes votes.csv --statements statements.csv --out runs/voted",
    ),
    "evaluate": (
        "Writes `evaluation.json` and `samples.jsonl`.",
        "accord evaluate --model runs/ppo/snapshot --reference runs/sft/snapshot \\\n"
        "    --data.benign 'world:prompts/benign?count=300&seed=3' \\\n"
        "    --data.harmful 'world:prompts/harmful?count=300&seed=3' --split evaluation \\\n"
        "    --rewards.helpful runs/helpful/snapshot --costs.harmless runs/harmless/snapshot \\\n"
        "    --max_new_tokens 40 --out runs/evaluation",
    ),
    "evaluate preference": (
        "Writes `evaluation.json`: accuracy, calibration, agreement and errors of preference models. The "
        "comparisons (here a file of yours) must be of prompts that no model learned from.",
        "accord evaluate preference --models.helpful runs/helpful/snapshot --bootstrap 500 \\\n"
        "    --data comparisons.jsonl --out runs/trust",
    ),
    "evaluate ratings": (
        "Writes `ratings.json`: win rates and Elo of snapshots, by judge. [ratings.md](ratings.md) says how.",
        "accord evaluate ratings --runs.sft runs/evaluation-sft --runs.ppo runs/evaluation \\\n"
        "    --judge gold/helpful,reward/helpful --out runs/ratings",
    ),
    "evaluate bias": (
        "Writes `evaluation.json` and `samples.jsonl`; [bias.md](bias.md) says what each number is.",
        "accord evaluate bias --model runs/ppo/snapshot --models.helpful runs/helpful/snapshot --sets.terms terms \\\n"
        "    --out runs/bias",
    ),
    "evaluate lm_eval": (
        "Needs `pip install 'accord[eval]'`. Writes `lm_eval.json`: what the library found, with errors and versions. "
        "`evaluate tasks` asks questions of the same kinds from files, paired before and after.",
        "accord evaluate lm_eval runs/sft/snapshot --tasks arc_easy,hellaswag --limit 200 --out runs/lm-eval",
    ),
    "evaluate inspect": (
        "Needs `pip install 'accord[eval]'`. Writes `inspect.json`, and Inspect's own logs to `inspect/`.",
        "accord evaluate inspect runs/sft/snapshot --tasks evals/arithmetic.py --limit 50 --out runs/inspect",
    ),
    "evaluate honesty": (
        "Writes `evaluation.json` and `samples.jsonl`, a row a probe. [honesty.md](honesty.md) says what is probed.",
        "accord evaluate honesty --model runs/ppo/snapshot --probes.tf 'world:prompts/true-false?count=900&seed=5' \\\n"
        "    --probes.facts 'world:prompts/knowledge?count=2000&seed=5' --out runs/honesty",
    ),
    "evaluate principles": (
        "Writes `evaluation.json` and `samples.jsonl`. What is tested is in "
        "[constitution.md](constitution.md#a-test-for-every-principle).",
        "accord evaluate principles --model runs/ppo/snapshot --constitution world --judge gold \\\n"
        "    --data 'world:prompts?count=200&seed=9' --split evaluation --max_new_tokens 40 --out runs/principles",
    ),
    "evaluate rewards": (
        "Writes `evaluation.json`: which share of a benchmark's questions a preference model answers, and what length "
        "has to do with it. [preference.md](preference.md#benchmarks) says how.",
        "accord evaluate rewards --models.helpful runs/helpful/snapshot --sets.rm-bench chat_filtered.jsonl \\\n"
        "    --sets.llmbar LLMBar_Natural.jsonl --out runs/rewards",
    ),
    "evaluate tasks": (
        "Writes `evaluation.json` and `samples.jsonl`, a row a question. [tasks.md](tasks.md) says what a set of "
        "questions may be, and what the tax is.",
        "accord evaluate tasks --model runs/ppo/snapshot --tasks.add 'world:prompts/skills-1?count=400&seed=5' \\\n"
        "    --tasks.harder 'world:prompts/skills-2?count=400&seed=5' --max_new_tokens 40 --out runs/tasks",
    ),
    "evaluate refusals": (
        "Writes `refusals.json`: who gives in to harmful prompts and who refuses benign ones, by every judge. "
        "[refusals.md](refusals.md) says how.",
        "accord evaluate refusals --runs.sft runs/evaluation-sft --runs.ppo runs/evaluation --out runs/refusals",
    ),
    "score": (
        "Writes `scores.jsonl`, a row a reply and a column a number; with `--label` also `labels.jsonl`.",
        "accord score --models.helpful runs/helpful/snapshot --models.policy runs/sft/snapshot \\\n"
        "    --data 'world:comparisons?count=200&seed=3' --label helpful --out runs/scores",
    ),
    "frontier": (
        "Writes `frontier.json`, and a run folder of `ppo` and `evaluate` for every value and seed. Both files may be "
        "the `config.yaml` of a run. `accord report` draws it.",
        "accord frontier --ppo runs/ppo/config.yaml --evaluate runs/evaluation/config.yaml \\\n"
        "    --over limits.harmless --values '[-0.3, 0]' --harm_slices harmful --out runs/frontier",
    ),
    "report": (
        "Writes one HTML page that needs no other file.",
        "accord report runs/sft runs/helpful runs/harmless runs/ppo runs/evaluation --out report.html",
    ),
    "chat": (
        "Reads lines until an empty one; `/reset` forgets the conversation.",
        "accord chat runs/ppo/snapshot",
    ),
    "export": (
        "Writes a Hugging Face directory that loads without Accord and without another directory. transformers and "
        "vLLM end a reply by its `generation_config.json`, llama.cpp's `convert_hf_to_gguf.py` by its tokenizer's EOS: "
        "both are the end of the template's turn. It writes no GGUF: the registry has no kept converter.",
        "accord export runs/ppo/snapshot --out exported --dtype bf16",
    ),
    "serve": (
        "Needs `pip install 'accord[serve]'`. Of a policy `/v1/chat/completions`, streamed or whole; temperature 0 is "
        "greedy, and what is not answered (`top_p`, tools, log-probs) is refused. Of a preference or cost model "
        "`/scores`, which takes what `--rewards.NAME http://127.0.0.1:8000/scores` sends and says to a GET what it is; "
        "scores are normalised of a preference model, raw of a cost model.",
        "accord serve runs/ppo/snapshot --port 8000",
    ),
    "claims": (
        "Writes a page, a figure and a JSON file for every claim; [claims.md](claims.md) says how.",
        "accord claims pipeline sqrt-kl --seeds 3",
    ),
}


def commands() -> str:
    """One section per command: a sentence, an example, the help text."""
    sections = []
    missing = set(COMMANDS) - set(EXAMPLES)
    assert not missing, f"add an example of {', '.join(missing)} to EXAMPLES in tests/docs/generate.py"
    for name, (sentence, example) in EXAMPLES.items():
        if name not in COMMANDS:
            continue
        text = build_parser(name, every=True).format_help().rstrip()
        lines = [f"## {name}", "", sentence, "", "```bash", example, "```", "", "```text"]
        sections.append("\n".join([*lines, *(line.rstrip() for line in text.splitlines()), "```"]))
    return "\n\n".join(sections)


def claims() -> str:
    """One section per claim, with the statistic and the rule as they stand in its code."""
    return "\n\n".join(
        f"### {claim.name}\n\n> {claim.claim} ({claim.source})\n\n**Statistic.** {claim.statistic}\n\n"
        f"**Rule.** {claim.rule}"
        for claim in CLAIMS.values()
    )


def between_marks(text: str, written: str) -> str:
    """The page with what stands between the marks made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"


TRAPS = DOCS.parent / "tests" / "traps.toml"
TRAP_ROW = re.compile(r"^\| ([A-G]\d+) \| (.+?) \| (.*?) ?\|$", re.MULTILINE)


def trap_guards() -> dict[str, str]:
    """What keeps each trap out, by id: its test, or the reason why there is none."""
    entries = tomllib.loads(TRAPS.read_text()) if TRAPS.exists() else {}
    entries = entries.get("traps", entries)
    guards = {}
    for trap, entry in entries.items():
        tests = [entry["test"]] if isinstance(entry.get("test"), str) else entry.get("test", [])
        shown = [f"`{test.removeprefix('tests/')}`" for test in tests]
        guards[trap] = " ".join(shown) or f"no test: {entry['reason']}"
    return guards


def with_guards(text: str) -> str:
    """docs/traps.md with the last column of its tables made anew from tests/traps.toml."""
    guards = trap_guards()
    return TRAP_ROW.sub(lambda row: f"| {row[1]} | {row[2]} | {guards.get(row[1], '')} |".replace("|  |", "| |"), text)


def rates() -> str:
    """A row a stage and size: the rate of weights, and that of adapters."""
    lines = ["| stage | parameters | every weight | LoRA |", "|---|---|---|---|"]
    for stage, rows in RATES.items():
        for row, before in zip(rows, (None, *rows), strict=False):
            size = f"up to {row.size / 1e6:,.0f}M" if row.size < MORE else f"more than {before.size / 1e6:,.0f}M"
            lines.append(f"| {stage} | {size} | {row.weights:g} | {row.adapters:g} |")
    return "\n".join(lines)


PAGES = {
    "commands.md": lambda text: between_marks(text, commands()),
    "claims.md": lambda text: between_marks(text, claims()),
    "traps.md": with_guards,
    "rates.md": lambda text: between_marks(text, rates()),
}


def rewritten(page: str) -> str:
    """The page as it should stand."""
    return PAGES[page]((DOCS / page).read_text())


if __name__ == "__main__":
    for page in PAGES:
        (DOCS / page).write_text(rewritten(page))
        print(f"wrote docs/{page}")
