"""Questions of reward-model benchmarks: a prompt, right replies and wrong ones, kept as they are published.

Every shape that ranks replies is one: RewardBench (`chosen`, `rejected`), RewardBench 2 and RM-Bench (lists of them),
LLMBar, HHH (`corrects`, `incorrects`). Unlike comparisons to learn from, replies may be equal or empty and keep their
places.
"""

from collections import Counter

from accord.data.conversations import Dropped
from accord.data.parse import Reader
from accord.data.parts import Parts
from accord.data.sources import nothing_left
from accord.records import Comparison, Prompt


def read_reward_set(source: str, how: Reader) -> tuple[list[Comparison], dict[str, int]]:
    """The questions of a benchmark as rankings, and how many rows were dropped, by reason.

    The slice is that of the row, or its column `subset`; the source its `id`, where it has one. Raises BadInput for
    rows that cannot be read, and where none is left.
    """
    found: list[Comparison] = []
    drops: Counter[str] = Counter()
    rows = 0
    for row, _, parts in how.rows(source, "comparison"):
        rows += 1
        subset, name = row.value.get("subset"), row.value.get("id")
        try:
            question = _question(
                parts, subset if isinstance(subset, str) else "", name if isinstance(name, str) else ""
            )
            found.append(question)
        except Dropped as reason:
            drops[str(reason)] += 1
    if not found:
        raise nothing_left(source, "question", rows, drops)
    return found, dict(drops)


def _question(parts: Parts | str, subset: str, name: str) -> Comparison:
    if isinstance(parts, str):
        raise Dropped(parts)
    if not parts.rankings:
        raise Dropped("other kind of record")
    ranking, prompts = parts.rankings[0], set(parts.prompts)
    if len(prompts) > 1:
        raise Dropped("prompts differ")
    if len(set(ranking.ranks)) < 2:
        raise Dropped("tie")
    prompt = Prompt(parts.prompts[0], parts.slice or subset, name or parts.source)
    shown = tuple(range(len(parts.replies)))
    return Comparison(prompt, parts.replies, ranking.ranks, "", parts.labeler, ranking.strength, shown)
