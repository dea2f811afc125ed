"""Run folders to one self-contained HTML page: no script, no request, all text escaped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from accord import __version__
from accord.errors import BadInput
from accord.reporting import figures, outcome_sections, training_sections, trust_section, watch_section
from accord.reporting.bias_section import bias_section
from accord.reporting.blocks import Cell, Figure, Section, Verdicts
from accord.reporting.constitution_section import constitution_section
from accord.reporting.context import Context, load_context
from accord.reporting.drawing import Picture, drawing
from accord.reporting.frontier_section import frontier_section
from accord.reporting.gate_section import gate_section
from accord.reporting.honesty_section import honesty_section
from accord.reporting.preference_section import preference_section
from accord.reporting.principles_section import principles_section
from accord.reporting.ratings_section import ratings_section
from accord.reporting.redteam_section import redteam_section
from accord.reporting.refusals_section import refusals_section
from accord.reporting.rewards_section import rewards_section
from accord.reporting.rounds_section import rounds_section
from accord.reporting.suite_lines import suite_lines
from accord.reporting.tasks_section import tasks_section

MAKERS: tuple[Callable[[Context], Section | None], ...] = (
    gate_section,
    rounds_section,
    frontier_section,
    outcome_sections.plane_section,
    outcome_sections.samples_section,
    outcome_sections.outcome_section,
    refusals_section,
    redteam_section,
    principles_section,
    constitution_section,
    ratings_section,
    training_sections.reward_section,
    training_sections.limits_section,
    watch_section.watch_section,
    outcome_sections.capability_section,
    tasks_section,
    honesty_section,
    bias_section,
    preference_section,
    trust_section.trust_section,
    rewards_section,
    training_sections.curves_section,
    training_sections.lineage_section,
)


def build_report(
    runs: Sequence[Path | str], *, title: str = "Accord report", summary: Sequence[str] = (), processes: int = 1
) -> str:
    """The page for these run folders (any stages, any order), as HTML.

    `summary` are lines of what was shown, put first; without it the page says what the evaluations themselves
    show. A section is there if its numbers are. Figures are drawn in so many processes, four at most; where these are
    more than this one, the caller's main module is imported in each. Raises BadInput for a folder that is missing,
    holds nothing, or has a broken file.
    """
    if not runs:
        raise BadInput("nothing to report on; name at least one run folder")
    with drawing(processes) as pictures:
        sections = []
        for section in sections_of(load_context(runs), summary):
            pictures.begin(block for block in section.blocks if isinstance(block, Figure))
            sections.append(section)
        return render(title, sections, pictures.drawn())


def sections_of(context: Context, summary: Sequence[str]) -> Iterator[Section]:
    """The summary, then every section whose numbers are there, one after the other."""
    yield summary_section(context, summary)
    for maker in MAKERS:
        section = maker(context)
        if section is not None:
            yield section


def summary_section(context: Context, lines: Sequence[str]) -> Section:
    """What was shown, in lines with intervals."""
    section = Section("summary", "What it showed", "")
    section.blocks.append(training_sections.tiles(context))
    verdicts = [Cell(line) for line in lines] or [*outcome_sections.findings(context), *suite_lines(context)]
    if verdicts:
        section.blocks.append(Verdicts(verdicts))
        section.lead = "From the evaluations below; brackets are 95 % intervals."
    for snapshot in context.snapshots:
        section.cite(context.name(snapshot.evaluation), snapshot.evaluation, "samples.jsonl")
    return section


def render(title: str, sections: Sequence[Section], pictures: Mapping[Figure, Picture]) -> str:
    """Sections to HTML. Only what figures draw is trusted markup."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("accord.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup
    return environment.get_template("page.html").render(
        title=title,
        sections=sections,
        pictures=pictures,
        version=__version__,
        light=figures.css_variables(dark=False),
        dark=figures.css_variables(dark=True),
    )
