"""The one list of metric names: what each means, its unit, where it stands, and TRL's name for it.

`NAME` in a name stands for a preference or cost model as the run names it, `SLICE` for a slice of prompts.
"""

from typing import NamedTuple

TRAINING = "pretrain, sft, preference, dpo"
PREFERENCE = "preference"
DPO = "dpo"
PPO = "ppo"
EVALUATE = "evaluate"
TASKS = "evaluate tasks"
HONESTY = "evaluate honesty"
ONLINE = "online"
BIAS = "evaluate bias"

# group: (heading, what it holds)
GROUPS: dict[str, tuple[str, str]] = {
    TRAINING: (
        "metrics.jsonl of pretrain, sft, preference and dpo",
        "One object per optimizer step. `eval/` names stand on the steps where `--eval_every` asks "
        "for them, and on the last.",
    ),
    PREFERENCE: (
        "metrics.jsonl and evaluation.json of preference",
        "Also with cross-validation (`--folds`), where every comparison is tested once by a model "
        "that saw no conversation with its opening.",
    ),
    DPO: (
        "metrics.jsonl and evaluation.json of dpo",
        "Rewards are implicit: β log π/π_ref of the first loss that has any, summed or averaged over tokens as "
        "that loss does. Means are over comparisons, a ranking counting once; of kto and bco `chosen` are the good "
        "replies and `rejected` the bad ones. `evaluation.json` also holds accuracy beside `length_baseline`, `ece`, "
        "`slope` and `bins` of the implicit reward on the held-out comparisons, as a preference model's does; `kl`, "
        "`sqrt_kl` and the checked `limits` of replies sampled to held-out prompts.",
    ),
    PPO: (
        "metrics.jsonl of ppo",
        "One object per iteration. Scores, KL and lengths are of the replies sampled in that "
        "iteration, before they are learned from; `loss/`, `policy/` and `grad_norm/` are means over "
        "its updates.",
    ),
    EVALUATE: (
        "evaluation.json and samples.jsonl of evaluate",
        "Each is a mean over replies for `all` prompts and for every slice, with a 95 % interval over "
        "prompts (Wilson's of a share, the bootstrap's of anything else): `mean`, `low`, `high` and `n`. "
        "`gold/` names exist only for prompts of the gold world.",
    ),
    TASKS: (
        "evaluation.json and samples.jsonl of evaluate tasks",
        "Each is a mean over the questions of a task, with a 95 % interval over questions; `changes` are paired by "
        "question, and `tax` is the mean change of accuracy over tasks.",
    ),
    HONESTY: (
        "evaluation.json and samples.jsonl of evaluate honesty",
        "Means over the questions of a probe with a 95 % interval; [honesty.md](honesty.md) defines all else there.",
    ),
    BIAS: (
        "evaluation.json and samples.jsonl of evaluate bias",
        "Means over the probes of a set with a 95 % interval over sentences or templates; [bias.md](bias.md) defines "
        "BBQ's scores.",
    ),
    ONLINE: ("rounds.json and metrics.jsonl of online", "`NAME` is a criterion; who judges: [online.md](online.md)."),
}


class Metric(NamedTuple):
    """`trl` is TRL's name for the same number, empty where it has none."""

    definition: str
    unit: str
    where: str
    trl: str = ""


METRICS: dict[str, Metric] = {
    # supervised stages
    "step": Metric("optimizer steps done (ppo: iterations done)", "count", TRAINING, "step"),
    "loss": Metric(
        "what is minimised, over this step's whole batch: pretrain and sft Σ −log p(token) / tokens "
        "that count; preference loss/ranking + label_weight · (2 · loss/sign or loss/label + loss/rating) + "
        "lm_weight · loss/lm + centring_weight · loss/centring + score_weight · mean score²; dpo Σ weight · loss/NAME",
        "nats",
        TRAINING,
        "loss",
    ),
    "eval/loss": Metric(
        "Σ −log p(token) / tokens that count, over all held-out text", "nats per token", TRAINING, "eval_loss"
    ),
    "learning_rate": Metric("learning rate of this step (ppo: of the policy)", "–", TRAINING, "learning_rate"),
    "grad_norm": Metric("Euclidean norm of the gradient before clipping", "–", TRAINING, "grad_norm"),
    "num_tokens": Metric("tokens read since the first step, prompt tokens included", "tokens", TRAINING, "num_tokens"),
    "tokens_per_second": Metric("tokens of this step / wall-clock seconds of this step", "tokens/s", TRAINING),
    # preference
    "loss/ranking": Metric(
        "mean over prompts of −log P(what was said about its replies): docs/preference.md has the models of P",
        "nats",
        PREFERENCE,
    ),
    "loss/sign": Metric(
        "Safe RLHF's sign terms, weighted mean over labelled replies of −log σ(±cost), + for unsafe replies",
        "nats",
        PREFERENCE,
    ),
    "loss/label": Metric(
        "weighted mean over replies labelled good or bad of −log σ(±score), + for good ones", "nats", PREFERENCE
    ),
    "loss/rating": Metric(
        "mean over rated replies of ½ (standardised rating − gain · score − bias)²", "squared deviations", PREFERENCE
    ),
    "loss/lm": Metric("mean of −log p(token) over the better replies", "nats per token", PREFERENCE),
    "loss/centring": Metric("mean over pairs of (s_better + s_worse)²", "squared score", PREFERENCE),
    "accuracy_label": Metric(
        "share of replies labelled good or bad with score > 0 exactly if good", "share", PREFERENCE
    ),
    "accuracy": Metric(
        "share of this batch's pairs in the labeler's order, a prompt counting once and a tie one half",
        "share",
        PREFERENCE,
        "accuracy",
    ),
    "accuracy_sign": Metric("share of labelled replies with cost > 0 exactly if unsafe", "share", PREFERENCE),
    "margin": Metric("mean of s_better − s_worse", "raw score", PREFERENCE, "margin"),
    "eval/accuracy": Metric("accuracy on the held-out prompts", "share", PREFERENCE, "eval_accuracy"),
    "length_baseline": Metric(
        "accuracy of preferring the longer (or always the shorter) reply, whichever is better on all pairs",
        "share",
        PREFERENCE,
    ),
    "over_length": Metric(
        "accuracy less `length_baseline`, pair by pair: above 0 with its whole interval, or length is all there is",
        "share",
        PREFERENCE,
    ),
    "bag_of_words": Metric(
        "accuracy of Bradley–Terry on counts of words, fitted to the same training comparisons", "share", PREFERENCE
    ),
    "over_bag_of_words": Metric("accuracy less `bag_of_words`, pair by pair", "share", PREFERENCE),
    "gold_ceiling": Metric(
        "how often the labels have the order of the gold scores, a pair of equal worth one half: what no model can be "
        "asked to pass (comparisons of the gold world alone)",
        "share",
        PREFERENCE,
    ),
    "gold_over_length": Metric(
        "`gold_ceiling` less `length_baseline`, pair by pair: what there is to gain over length", "share", PREFERENCE
    ),
    "gold_over_bag_of_words": Metric(
        "`gold_ceiling` less `bag_of_words`, pair by pair: where it holds 0, words alone say what the labels say",
        "share",
        PREFERENCE,
    ),
    "gold_ties": Metric("share of pairs whose replies are worth the same in gold", "share", PREFERENCE),
    "gold_accuracy": Metric(
        "share of the other pairs whose scores are in the order of the gold scores", "share", PREFERENCE
    ),
    "tie_rate": Metric("share of pairs with equal scores", "share", PREFERENCE),
    "ece": Metric(
        "expected calibration error: Σ over 10 bins of equal mass of n_bin / n · |accuracy − "
        "confidence|, where confidence = σ(|score difference|) and a tie is half right",
        "share",
        PREFERENCE,
    ),
    "slope": Metric(
        "b of the likeliest σ(b · score difference): 1 is calibrated, below 1 over-confident", "–", PREFERENCE
    ),
    # dpo
    "loss/NAME": Metric("loss NAME of `--loss` before its weight", "nats, or as docs/objectives.md has it", DPO),
    "loss/orpo/nll": Metric("orpo's likelihood term: mean of −log π(chosen) per token", "nats per token", DPO),
    "loss/orpo/odds_ratio": Metric("orpo's other term, before λ: mean of −log σ(log odds ratio)", "nats", DPO),
    "rewards/chosen": Metric("mean implicit reward of the better replies", "nats · β", DPO, "rewards/chosen"),
    "rewards/rejected": Metric("mean implicit reward of the worse replies", "nats · β", DPO, "rewards/rejected"),
    "rewards/margins": Metric("rewards/chosen − rewards/rejected", "nats · β", DPO, "rewards/margins"),
    "rewards/accuracies": Metric(
        "share of pairs whose implicit rewards are in the labeler's order, a tie one half",
        "share",
        DPO,
        "rewards/accuracies",
    ),
    "logps/chosen": Metric("mean log π(better reply)", "nats per reply", DPO, "logps/chosen"),
    "logps/rejected": Metric("mean log π(worse reply)", "nats per reply", DPO, "logps/rejected"),
    "logps/displaced": Metric(
        "share of pairs whose better reply is less probable than under the reference although the margin is positive",
        "share",
        DPO,
    ),
    "kto/kl": Metric(
        "KTO's z: mean log π/π_ref of replies beside prompts of others, 0 if negative", "nats per reply", DPO, "kl"
    ),
    "eval/rewards/accuracies": Metric(
        "rewards/accuracies on the held-out comparisons", "share", DPO, "eval_rewards/accuracies"
    ),
    "eval/rewards/margins": Metric(
        "rewards/margins on the held-out comparisons", "nats · β", DPO, "eval_rewards/margins"
    ),
    "eval/logps/chosen": Metric("logps/chosen on the held-out comparisons", "nats per reply", DPO, "eval_logps/chosen"),
    "eval/logps/rejected": Metric(
        "logps/rejected on the held-out comparisons", "nats per reply", DPO, "eval_logps/rejected"
    ),
    "eval/logps/chosen_drift": Metric(
        "mean change of log π(better reply) since the first step, held-out comparisons", "nats per reply", DPO
    ),
    "eval/logps/rejected_drift": Metric(
        "mean change of log π(worse reply) since the first step, held-out comparisons", "nats per reply", DPO
    ),
    "eval/displacement": Metric(
        "1 where chosen_drift is below 0 by more than two standard errors while the margin grew (a warning is "
        "printed), else 0",
        "0 or 1",
        DPO,
    ),
    # ppo
    "objective/kl": Metric(
        "mean over replies of Σ_t KL of the token by `--kl_estimator`, the one that trains: by default log p(token) − "
        "log p_ref(token); at the sampling temperature, never clamped",
        "nats per reply",
        PPO,
        "objective/kl",
    ),
    "sqrt_kl": Metric("√max(objective/kl, 0)", "√nats", PPO),
    "objective/scores": Metric(
        "mean over replies of the weighted sum of the rewards, without KL",
        "normalised score",
        PPO,
        "objective/scores",
    ),
    "objective/rlhf_reward": Metric(
        "mean over replies of score (clipped, less the penalty of unfinished replies) − kl_coefficient · KL",
        "normalised score",
        PPO,
        "objective/rlhf_reward",
    ),
    "objective/entropy": Metric(
        "mean over reply tokens of the policy's entropy", "nats per token", PPO, "objective/entropy"
    ),
    "kl_coefficient": Metric("β, the price of a nat of KL, in this iteration", "score per nat", PPO, "kl_coef"),
    "reward/NAME": Metric("mean score of preference model NAME", "normalised score", PPO),
    "reward/NAME/SLICE": Metric("the same on the prompts of one slice", "normalised score", PPO),
    "labeler/NAME/questions": Metric("questions that labeler NAME has answered so far", "count", PPO),
    "labeler/NAME/calls": Metric("calls for them so far, failed ones too; 0 in this process", "count", PPO),
    "labeler/NAME/cost": Metric("their cost so far", "currency of the prices", PPO),
    "cost/NAME/mean": Metric(
        "mean raw cost on the limit's slice (on all prompts if NAME has no limit), in the head's own units, without "
        "normaliser: what the multiplier sees of a limit on the cost; above 0 is unsafe",
        "raw cost",
        PPO,
    ),
    "cost/NAME/unsafe": Metric("share of those replies with cost > 0", "share", PPO),
    "cost/NAME/expected": Metric(
        "expected share of unsafe replies among them, mean σ(cost / temperature): what the multiplier sees where "
        "that is bounded (`--limit_of unsafe`)",
        "share",
        PPO,
    ),
    "cost/NAME/window": Metric(
        "mean of what is bounded over the replies of the last `--limit_window` iterations, where it is more than one: "
        "what the multiplier sees then, beside cost/NAME/mean or cost/NAME/expected of this iteration",
        "raw cost or share",
        PPO,
    ),
    "cost/NAME/SLICE/mean": Metric("mean raw cost on the prompts of one slice", "raw cost", PPO),
    "cost/NAME/SLICE/unsafe": Metric("share of replies with cost > 0 on one slice", "share", PPO),
    "lagrange/NAME": Metric("λ, the multiplier of the limit on NAME, used in this iteration", "–", PPO),
    "policy/clip_fraction": Metric(
        "share of reply tokens where the clipped surrogate is the smaller",
        "share",
        PPO,
        "policy/clipfrac_avg",
    ),
    "policy/kl_old_new": Metric(
        "mean over reply tokens of r − 1 − log r, with r the ratio of new to sampled probability (Schulman's k3)",
        "nats per token",
        PPO,
        "policy/approxkl_avg",
    ),
    "policy/ratio": Metric("mean of r over reply tokens", "–", PPO, "val/ratio"),
    "policy/sampler_gap": Metric(
        "mean |log p of the sampler − log p of the trainer| over the replies to every 16th prompt, before anything is "
        "learned; above `--sampler_gap` the trainer's stand in the ratio, else the sampler's",
        "nats per token",
        PPO,
    ),
    "policy/importance": Metric(
        "mean over reply tokens of min(π/μ, 2), with μ the weights that drew them, one step older, and π those that "
        "this iteration begins with (`--off_policy_steps 1`)",
        "–",
        PPO,
    ),
    "policy/importance_truncated": Metric(
        "reply tokens whose π/μ is 2 or above (`--off_policy_steps 1`)", "share", PPO
    ),
    "policy/importance_effective": Metric(
        "effective sample size of these weights over the number of tokens, (Σw)² / (n Σw²) (`--off_policy_steps 1`)",
        "share",
        PPO,
    ),
    "policy/updates": Metric("optimizer steps in this iteration", "count", PPO),
    "loss/policy": Metric("clipped surrogate loss per reply token", "–", PPO, "loss/policy_avg"),
    "loss/value/NAME": Metric(
        "half the mean squared distance of value and return, per reply token, of the critic of one "
        "signal (`reward` or a cost)",
        "squared score",
        PPO,
        "loss/value_avg",
    ),
    "loss/kl": Metric("β · mean KL, where it is a term of the loss (`--kl_in loss`)", "score per token", PPO),
    "loss/ptx": Metric("−log p of the other text's tokens (`--ptx_data`), before its weight", "nats per token", PPO),
    "values/NAME": Metric("mean value of that critic over reply tokens", "score", PPO),
    "grad_norm/NAME": Metric("gradient norm before clipping, of `policy` and of `critics`", "–", PPO),
    "completions/mean_length": Metric("mean reply length", "tokens", PPO, "completions/mean_length"),
    "completions/clipped_ratio": Metric(
        "share of replies that were cut at the longest length", "share", PPO, "completions/clipped_ratio"
    ),
    "watch/perplexity": Metric("exp of the mean −log p_ref over reply tokens", "–", PPO),
    "watch/entropy": Metric(
        "mean −log p over reply tokens: the policy's entropy by its sample estimate", "nats per token", PPO
    ),
    "watch/repetition": Metric("share of a reply's runs of three tokens that stood in it before, mean", "share", PPO),
    "watch/tail": Metric(
        "share of replies with a reward above the 99 % quantile of the first iteration's; 0.01 there", "share", PPO
    ),
    "watch/NAME/score": Metric("mean score of a model that is watched and not trained on", "normalised score", PPO),
    "watch/NAME/gap": Metric(
        "rise of the reward since the first iteration less that of the watched model, each in its deviations then",
        "deviations",
        PPO,
    ),
    "watch/alarms": Metric("alarms that rang in this iteration", "count", PPO),
    # evaluate
    "gold/helpful": Metric(
        "gold helpfulness, blind to safety (docs/world.md says how it is scored)",
        "gold score, −1 … 1",
        EVALUATE,
    ),
    "gold/harm": Metric("gold harm; above 0 is harmful", "gold score, −1 … 1", EVALUATE),
    "gold/harm_share": Metric("share of replies with gold harm > 0", "share", EVALUATE),
    "gold/honest": Metric("gold honesty: right, says that it does not know, or wrong", "gold score, −1 … 1", EVALUATE),
    "gold/evasive": Metric("gold evasiveness: a bare refusal more than one that explains", "gold score", EVALUATE),
    "gold/refusal": Metric(
        "share of refusals; on look-alike and benign prompts this is over-refusal", "share", EVALUATE
    ),
    "gold/correct": Metric("share of right answers, on knowledge questions and plain skills only", "share", EVALUATE),
    "reward/NAME (evaluate)": Metric("score of preference model NAME", "normalised score", EVALUATE),
    "cost/NAME": Metric("raw cost by cost model NAME; above 0 is unsafe", "raw cost", EVALUATE),
    "cost/NAME/unsafe (evaluate)": Metric("share of replies with cost > 0", "share", EVALUATE),
    "cost/NAME/expected (evaluate)": Metric(
        "mean σ(cost / temperature), of a cost model that was calibrated; the interval includes that fit's error",
        "share",
        EVALUATE,
    ),
    "kl": Metric("log p(reply) − log p_ref(reply) at the sampling temperature", "nats per reply", EVALUATE, "kl"),
    "length": Metric("reply length, stop token included", "tokens", EVALUATE),
    "win_rate": Metric(
        "share of shared prompts on which the judge's score is higher than in `--against`, a tie "
        "counting half; `wins`, `ties`, `losses` and `tie_rate` stand beside it",
        "share",
        EVALUATE,
        "win_rate",
    ),
    "loss (evaluate)": Metric(
        "Σ −log p(token) / assistant tokens of the demonstrations in --eval_data", "nats per token", EVALUATE
    ),
    # evaluate tasks
    "task/accuracy": Metric(
        "share of right answers: the likeliest option, the very next words by greedy decoding, a drawn reply that says "
        "the answer, or gold's verdict; a tie goes to the first option",
        "share",
        TASKS,
    ),
    "task/accuracy_norm": Metric(
        "share of questions whose right option is the likeliest per character (lm-eval's `acc_norm`); only where the "
        "options differ in length",
        "share",
        TASKS,
    ),
    "task/logprob": Metric("log p of the right option, or of the very next words", "nats", TASKS),
    "task/loss": Metric("−log p(token) of plain text, mean over pieces of `--max_length`", "nats per token", TASKS),
    # evaluate honesty
    "honest/right": Metric("share of right answers, of what can be known", "share", HONESTY),
    "honest/declined": Metric("share of replies that say that they do not know", "share", HONESTY),
    "honest/denied": Metric("share of premises denied", "share", HONESTY),
    "honest/echo": Metric("share of wrong opinions of the user that are given back", "share", HONESTY),
    "honest/top": Metric("mean chance of the likeliest option", "chance", HONESTY),
    "honest/stated": Metric("mean chance that is stated in words or in percent", "chance", HONESTY),
    "honest/p_true": Metric("mean P(True) of answers", "chance", HONESTY),
    "honest/brier": Metric("mean (chance − right)², of the chance that the probe reads", "squared chance", HONESTY),
    "honest/p_ik": Metric("mean P(IK), the chance to know that a head reads off the question", "chance", HONESTY),
    "honest/refused": Metric(
        "share of benign prompts that are refused, or met with not knowing: over-refusal", "share", HONESTY
    ),
    # evaluate bias
    "bias/gap": Metric("log p of a sentence with the first term less log p with the second", "nats", BIAS),
    "bias/first": Metric(
        "share of sentences that are likelier with the first term, a tie one half; even is 0.5", "share", BIAS
    ),
    "bias/gap/NAME": Metric("score of the sentence with the first term less that with the second", "logits", BIAS),
    "bias/first/NAME": Metric("share of sentences that score higher with the first term", "share", BIAS),
    "bias/right": Metric("share of BBQ's questions whose likeliest answer is right", "share", BIAS),
    "bias/biased": Metric("share of answers that name somebody and say what the stereotype says", "share", BIAS),
    "bias/matching": Metric("share of questions whose likelier answer shows the behaviour", "share", BIAS),
    "bias/chance": Metric("mean chance of that answer against the other", "chance", BIAS),
    "bias/sentiment": Metric(
        "sentiment of the reply about the first term less that about the second", "the scorer's", BIAS
    ),
    # online
    "round/promoted": Metric("1 where the round's policy was promoted", "count", ONLINE),
    "win/NAME": Metric("share of fresh prompts won against the incumbent, a tie counting half", "share", ONLINE),
    "win/NAME/worst_group": Metric("the same to the value group that is worst off", "share", ONLINE),
    "win_first/NAME": Metric("the same as win/NAME against the reply of the first snapshot", "share", ONLINE),
    "win_first/NAME/worst_group": Metric("the same to the value group that is worst off", "share", ONLINE),
}
