"""The feedback page: answers that are durable before they are acknowledged, the next item of a large store, a start."""

from benchmarks import equality
from benchmarks.cases import Plan
from benchmarks.harness import OURS, Case, Job, Measure, at_least, at_most
from benchmarks.workloads import Workload, hh_items

DATABASES = {"sqlite": "", "postgresql": "postgresql"}  # and what the machine must have for it


def feedback(plan: Plan) -> list[Case]:
    """Of eight clients that submit at once, of one who turns the pages of a million questions, and of one who waits for
    the first question on fresh replies (of the model of `--model`, else of random weights); by the clock."""
    workload = Workload(hh_items(8, 512), 512, "toy")
    sizes = {"items": 400, "labels": 80, "requests": 5} if plan.toy else {}
    cases = []
    for name, needs in DATABASES.items():
        submits = {"database": name, "submits": 80 if plan.toy else 8000}
        large = {"database": name, "items": 1_000_000, "labels": 200_000, "requests": 1000, **sizes}
        cases += [
            Case(
                f"submits of 8 clients, {name}",
                workload,
                Job(OURS, "feedback_submits", submits),
                None,
                equality.acknowledged,
                [
                    Measure(at_least(300, "a second"), lambda ours, _: float(ours["rate"])),
                    Measure(at_most(150, "ms"), lambda ours, _: float(ours["p99"]), ", p99"),
                ],
                needs=needs,
            ),
            Case(
                f"next item of {large['items']:,}, {name}",
                workload,
                Job(OURS, "feedback_next", large),
                None,
                equality.shown,
                [
                    Measure(at_most(50, "ms"), lambda ours, _: float(ours["p50"]), ", p50"),
                    Measure(at_most(50, "ms"), lambda ours, _: float(ours["p99"]), ", p99"),
                ],
                needs=needs,
            ),
        ]
    start = Job(OURS, "feedback_start", {"snapshot": plan.model})
    measures = [
        Measure(at_most(20, "s"), lambda ours, _: float(ours["links"]), ", links"),
        Measure(at_most(20, "s"), lambda ours, _: float(ours["question"]), ", first question"),
    ]
    return [*cases, Case("start on a snapshot", workload, start, None, equality.shown, measures)]
