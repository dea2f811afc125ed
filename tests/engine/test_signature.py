"""Engines are exchanged for one another, so they are asked alike."""

import inspect

import pytest

from accord.engine.decode import sampler
from accord.engine.engines import Engine, InProcess, Served


def signature(function):
    given = inspect.signature(function)
    return [(p.name, p.kind, p.default, p.annotation) for p in given.parameters.values()], given.return_annotation


@pytest.mark.parametrize("engine", [InProcess, Served])
def test_every_engine_has_the_signature_of_the_protocol(engine):
    assert signature(engine.sample) == signature(Engine.sample)


def test_the_sampler_takes_the_same_between_its_model_and_its_memory():
    asked, returned = signature(sampler.sample)
    assert [name for name, *_ in asked[4:]] == ["cache_tokens", "stems"]
    assert ([asked[1:4], returned]) == [signature(Engine.sample)[0][1:], signature(Engine.sample)[1]]
