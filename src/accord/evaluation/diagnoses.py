"""What it means when a metric of policy optimisation passes its bound, where to look, and which knob to turn.

A number past a bound proves nothing by itself: each meaning is the commonest reason, and says what tells it from
others. Bai et al. 2022 (arXiv:2204.05862), section 4; Gao et al. 2022 (arXiv:2210.10760); Zheng et al. 2023
(arXiv:2307.04964).
"""

import math
from typing import NamedTuple

from accord.evaluation.metrics import definition, key_of


class AlarmMeaning(NamedTuple):
    """Sentences without a full stop: what has happened, what to look at, what to turn."""

    means: str
    look: str
    turn: str


CLOSER = "raise --kl_coefficient, lower --learning_rate, or do fewer --steps"
DRIFT = AlarmMeaning(
    "the policy is far from its reference, where the preference model has seen few replies and is often wrong",
    "whether watch/NAME/gap or a gold score turned meanwhile; samples.jsonl of these iterations beside the first ones",
    f"{CLOSER}; --kl_target holds a distance, --kl_budget ends the run at one",
)
STILL = AlarmMeaning(
    "the policy hardly moves: the price of KL is above what the reward has to offer",
    "objective/scores, policy/clip_fraction and grad_norm/policy: all flat",
    "lower --kl_coefficient, raise --learning_rate or --ppo_epochs",
)
FALLING = AlarmMeaning(
    "the score that is optimised falls: steps are too large, or a limit costs more than the reward gains",
    "policy/clip_fraction and policy/kl_old_new (large steps), lagrange/NAME (a limit at work), the critic's loss",
    "lower --learning_rate or --ppo_epochs, raise --batch_size; loosen --limits if it is a limit",
)
RISING = AlarmMeaning(
    "the score is higher than was thought possible: the preference model may be exploited",
    "watch/NAME/gap of a model of other data, watch/tail, and the best rewarded replies in samples.jsonl",
    f"{CLOSER}; reward by an ensemble (`accord preference --ensemble 3 --combine worst`)",
)
COST = AlarmMeaning(
    "replies are less safe than the bound: the multiplier has not caught up, or cannot",
    "lagrange/NAME: still rising, or at --multiplier_bound; cost/NAME/SLICE/mean for the slice that does it",
    "raise --multiplier_rate, --multiplier_init or --multiplier_bound; more --steps; label more replies of that slice",
)
CAUTION = AlarmMeaning(
    "replies are far safer than asked: often the policy refuses what is harmless too",
    "refusals of look-alike and benign prompts (`accord evaluate refusals`), the reward on the benign slice",
    "loosen --limits, lower --multiplier_init; add harmless prompts that look harmful to --data",
)
MISTRUST = AlarmMeaning(
    "a model that was never optimised against does not share the rise: what rises is the preference model's mistakes",
    "replies that the two score most differently in samples.jsonl; accuracy on the policy's own replies",
    "end earlier (an alarm that rolls back, fewer --steps); compare fresh replies and train again (`accord online`); "
    "reward by an ensemble (`accord preference --ensemble 3 --combine worst`)",
)
WORSE = AlarmMeaning(
    "the truth itself got worse while the reward was optimised",
    "at which KL it turned (objective/kl), and on which slice",
    f"end earlier (an alarm that rolls back); {CLOSER}",
)
REFUSING = AlarmMeaning(
    "the policy refuses or evades more",
    "whether it refuses harmless prompts too: the look-alike and benign slices by `accord evaluate`",
    "loosen --limits, lower --multiplier_init; add look-alike prompts and comparisons of them",
)
DEARER = AlarmMeaning(
    "the labeler that rewards has been asked more than was planned",
    "labeler/NAME/questions and journal.jsonl: questions are one a reply and principle",
    "fewer --steps, a smaller --batch_size, one principle (--labeling.ensemble 1), or a bound (--labeling.max_calls)",
)
# metric as docs/metrics.md names it, and the side that it is on
MEANINGS: dict[tuple[str, str], AlarmMeaning] = {
    ("objective/kl", "above"): DRIFT,
    ("sqrt_kl", "above"): DRIFT,
    ("objective/kl", "below"): STILL,
    ("sqrt_kl", "below"): STILL,
    ("kl_coefficient", "above"): DRIFT,
    ("kl_coefficient", "below"): STILL,
    ("objective/scores", "below"): FALLING,
    ("reward/NAME", "below"): FALLING,
    ("reward/NAME/SLICE", "below"): FALLING,
    ("objective/scores", "above"): RISING,
    ("reward/NAME", "above"): RISING,
    ("reward/NAME/SLICE", "above"): RISING,
    ("completions/mean_length", "above"): AlarmMeaning(
        "replies grow: preference models often like what is longer, and a policy finds that first",
        "`accord evaluate preference`: how much of its accuracy is length; whether the long replies say more",
        "compare replies of like length, or balance them in the preference data; lower --max_new_tokens; " + CLOSER,
    ),
    ("completions/mean_length", "below"): AlarmMeaning(
        "replies shrink: short refusals or empty answers are paid, or a limit makes saying little the safest",
        "gold/refusal or refusals by `accord evaluate refusals`; the shortest replies in samples.jsonl",
        "loosen --limits, lower --multiplier_init; compare more short replies with good ones",
    ),
    ("completions/clipped_ratio", "above"): AlarmMeaning(
        "replies do not end, and were scored half said",
        "the ends of replies in samples.jsonl: cut in good text, or running on",
        "raise --max_new_tokens if the text is good, --unfinished_penalty if it runs on",
    ),
    ("watch/entropy", "below"): AlarmMeaning(
        "the policy is nearly certain of every word: it has settled on a few replies and explores no more",
        "whether different prompts get the same sentences in samples.jsonl; watch/repetition",
        f"{CLOSER}; fewer --ppo_epochs",
    ),
    ("watch/entropy", "above"): AlarmMeaning(
        "the policy gets random: it unlearns to write",
        "watch/perplexity, and whether replies are still sentences in samples.jsonl",
        "lower --learning_rate or --ppo_epochs, raise --kl_coefficient; --temperature 1",
    ),
    ("watch/perplexity", "above"): AlarmMeaning(
        "the reference finds the replies odd: text off its language is rewarded",
        "the highest rewarded replies in samples.jsonl: tricks, symbols, strange words",
        f"{CLOSER}; compare such replies with plain ones and train the preference model again",
    ),
    ("watch/perplexity", "below"): AlarmMeaning(
        "the replies are too easy for the reference: stock phrases that fit any prompt",
        "watch/repetition, and whether replies differ between prompts in samples.jsonl",
        f"{CLOSER}; compare stock phrases with answers",
    ),
    ("watch/repetition", "above"): AlarmMeaning(
        "replies repeat themselves, and the preference model does not mind",
        "the score of a reply beside the same without its repetitions (`accord score`)",
        f"{CLOSER}; add comparisons in which the repeating reply loses; lower --max_new_tokens",
    ),
    ("watch/tail", "above"): AlarmMeaning(
        "many replies are rewarded as almost none was at the start: often a few tricks that pay",
        "whether the best rewarded replies in samples.jsonl are alike, and good",
        f"bound single scores (--score_clip); {CLOSER}; reward by an ensemble",
    ),
    ("watch/NAME/gap", "above"): MISTRUST,
    ("watch/NAME/score", "below"): MISTRUST,
    **{(f"cost/NAME/{what}", "above"): COST for what in ("mean", "unsafe", "expected", "window")},
    **{(f"cost/NAME/{what}", "below"): CAUTION for what in ("mean", "unsafe", "expected", "window")},
    ("cost/NAME/SLICE/mean", "above"): COST,
    ("cost/NAME/SLICE/unsafe", "above"): COST,
    ("cost/NAME/SLICE/mean", "below"): CAUTION,
    ("cost/NAME/SLICE/unsafe", "below"): CAUTION,
    ("lagrange/NAME", "above"): AlarmMeaning(
        "the multiplier keeps growing: the limit is not met, and perhaps cannot be",
        "whether cost/NAME/mean still falls; samples.jsonl of the slice of the limit",
        "loosen --limits, start from a safer snapshot (--model), or label more of that slice",
    ),
    **{(f"gold/{what}", "below"): WORSE for what in ("helpful", "honest", "correct")},
    **{(f"gold/{what}", "above"): WORSE for what in ("harm", "harm_share")},
    **{(f"gold/{what}", "above"): REFUSING for what in ("refusal", "evasive")},
    **{(f"labeler/NAME/{what}", "above"): DEARER for what in ("questions", "calls", "cost")},
}
UNKNOWN = AlarmMeaning(
    "a number is not finite: an overflow, or a mean over nothing",
    "the first row of metrics.jsonl where one is not, and grad_norm/NAME before it",
    "--precision f32, a lower --learning_rate; a slice that is drawn in every iteration",
)


def diagnose(metric: str, side: str, value: float) -> AlarmMeaning:
    """What to think when a logged metric is `above` or `below` its bound; in general words where none are known."""
    if not math.isfinite(value):
        return UNKNOWN
    key = key_of(metric)
    if key is not None and (key, side) in MEANINGS:
        return MEANINGS[key, side]
    found = definition(metric)
    about = found.definition if found else metric
    return AlarmMeaning(
        f"{side} the bound that you set: {about}",
        f"{metric} over iterations in the report, and samples.jsonl from where it turned",
        CLOSER,
    )
