"""What help costs in harm over values of one knob, and the point that was chosen."""

from accord.reporting import figures
from accord.reporting.blocks import Cell, Section, Table, figure, interval_cell
from accord.reporting.context import Context, label_of
from accord.reporting.runs import RunData, interval, number


def frontier_section(context: Context) -> Section | None:
    """A figure and a table for every frontier."""
    runs = [run for run in context.runs if run.frontier.get("points")]
    if not runs:
        return None
    section = Section(
        "frontier",
        "The frontier",
        "One policy, or one for every seed, for each value of a knob. Right is more helpful, down is less harmful. Of "
        "the points whose whole interval of harm is below the line the most helpful is chosen.",
    )
    for run in runs:
        _show(section, run)
        section.cite(context.name(run), run, "frontier.json")
    return section


def _show(section: Section, run: RunData) -> None:
    found = run.frontier
    chosen, over, at_most = found.get("chosen"), str(found.get("over")), number(found.get("at_most"))
    slices = ", ".join(found.get("harm_slices") or []) or "all prompts"
    xlabel = f"{label_of(str(found.get('help_metric')))}, all prompts"
    ylabel = f"{label_of(str(found.get('harm_metric')))}, {slices}"
    points, rows = [], []
    for color, point in enumerate(found["points"]):
        x, y = interval(point.get("help")), interval(point.get("harm"))
        name = str(point.get("name"))
        taken = name == chosen
        if x and y:
            points.append(figures.Point(f"{name} (chosen)" if taken else name, color, x, y))
        verdict = str(point.get("verdict"))
        rows.append(
            [Cell(name, color=color), interval_cell(x), interval_cell(y), Cell(verdict, "chosen" if taken else "")]
        )
    seeds = int(number(found.get("seeds")))
    of = f"{seeds} seeds" if seeds > 1 else "one seed: over its prompts alone"
    caption = (
        f"Values of {over}: the further right below the dashed line, the better. Crosses are 95 % intervals over {of}."
    )
    level = {"level": at_most, "level_label": f"at most {at_most:g}"}
    section.blocks.append(figure(figures.plane, points, xlabel, ylabel, **level, caption=caption))
    section.blocks.append(Table([over, xlabel, ylabel, f"at most {at_most:g}"], rows))
