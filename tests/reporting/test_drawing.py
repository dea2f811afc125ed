import pytest

from accord.reporting import figures
from accord.reporting.blocks import figure
from accord.reporting.drawing import drawing


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_what_drawing_raises_arrives_wherever_it_is_drawn(processes):
    broken = figure(figures.bars, ["a name"], ["no number"], "seconds", caption="")
    with pytest.raises(TypeError, match="must be real number"), drawing(processes) as pictures:
        pictures.begin([broken])
        pictures.drawn()


def test_every_figure_is_drawn_for_a_desk_and_for_a_phone():
    data = figure(figures.bars, ["a name"], [2.0], "seconds", caption="Time.")
    with drawing(1) as pictures:
        pictures.begin([data])
        (picture,) = pictures.drawn().values()
    assert picture == (data.drawn(figures.WIDTH), data.drawn(figures.NARROW))
    assert f'width="{72 * figures.WIDTH:g}pt"' in picture.wide
    assert f'width="{72 * figures.NARROW:g}pt"' in picture.narrow
