"""The folds of `accord preference --folds K` without the model of all data: python runs/hh_folds.py FLAGS…"""

import sys

from accord.models.tokenizer import load_renderer
from accord.parsing import parse
from accord.run import RunFolder
from accord.stages.preference.items import read_preference_data
from accord.stages.preference.results import cross_validated
from accord.stages.preference.run import cross_validate, fold_of, settle_learner
from accord.training import distributed


def main(flags: list[str]) -> None:
    config = parse("preference", flags)
    with RunFolder("preference-folds", config, {"model": config.model}) as run:
        if run.finished:
            return
        world = distributed.start(config.threads)
        material = read_preference_data(config, run, load_renderer(config.model))
        config = settle_learner(config, run, world, material)
        scores = cross_validate(config, world, material)
        found, pairs = cross_validated(config, material.items, scores, lambda item: fold_of(item.prompt, config.folds))
        run.write_json("evaluation.json", found)
        run.write_json("tested.json", pairs)
        run.finish(comparisons=len(material.items))


if __name__ == "__main__":
    main(sys.argv[1:])
