"""Every command's knobs, once: they are the flags, the help, the YAML file and the saved `config.yaml`.

This package imports neither torch nor transformers, so that `accord COMMAND --help` answers at once.
Sources are written as docs/data.md says; directories and hub ids name snapshots.
"""

from accord.config.base import (
    Adapters,
    Config,
    Precision,
    Run,
    Sampling,
    Schedule,
    Sources,
    Supervised,
    Training,
    to_plain,
)
from accord.config.commands import Chat, Claims, Data, Demo, Evaluate, Report, Sample, Soup
from accord.config.direct import (
    DIRECT_LOSSES,
    DIRECT_OPTIONS,
    LABELERS,
    LISTWISE,
    PAIRED,
    TAKE_MARGIN,
    UNPAIRED,
    Annotate,
    Dpo,
    Labeler,
    Online,
)
from accord.config.language import Pretrain, Sft
from accord.config.ppo import (
    PER_LIMIT,
    AdvantageKnobs,
    Alarm,
    KlKnobs,
    LimitKnobs,
    MixKnobs,
    PerLimit,
    Ppo,
    WatchKnobs,
    parse_alarm,
)
from accord.config.preference import EvaluatePreference, Preference, Score

__all__ = [
    "DIRECT_LOSSES",
    "DIRECT_OPTIONS",
    "LABELERS",
    "LISTWISE",
    "PAIRED",
    "PER_LIMIT",
    "TAKE_MARGIN",
    "UNPAIRED",
    "Adapters",
    "AdvantageKnobs",
    "Alarm",
    "Annotate",
    "Chat",
    "Claims",
    "Config",
    "Data",
    "Demo",
    "Dpo",
    "Evaluate",
    "EvaluatePreference",
    "KlKnobs",
    "Labeler",
    "LimitKnobs",
    "MixKnobs",
    "Online",
    "PerLimit",
    "Ppo",
    "Precision",
    "Preference",
    "Pretrain",
    "Report",
    "Run",
    "Sample",
    "Sampling",
    "Schedule",
    "Score",
    "Sft",
    "Soup",
    "Sources",
    "Supervised",
    "Training",
    "WatchKnobs",
    "parse_alarm",
    "to_plain",
]
