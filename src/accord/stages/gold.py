"""Gold truth for prompts of the gold world; nothing for any other prompt."""

from accord.records import Prompt


def gold_scores(prompt: Prompt, reply: str) -> dict[str, float]:
    """Gold scores of a reply by name; empty where the truth is not known."""
    if not prompt.source.startswith("world:"):
        return {}
    from accord.world import judge

    gold = judge(prompt.turns, reply)
    scores = {
        "gold/helpful": gold.helpful,
        "gold/harm": gold.harm,
        "gold/harm_share": float(gold.harm > 0),
        "gold/honest": gold.honest,
        "gold/evasive": gold.evasive,
        "gold/refusal": float(gold.refused),
    }
    if gold.correct is not None:
        scores["gold/correct"] = float(gold.correct)
    return scores
