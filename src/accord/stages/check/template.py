"""What a chat template takes and writes: shapes of conversation, the end of a turn, stops, PAD, clock, thoughts."""

from accord.data.chat import Renderer
from accord.data.template import ANSWER, THOUGHT, Refused
from accord.models.preflight import Diagnosis
from accord.records import Turn

ASK, ANSWERED = Turn("user", "Hello."), Turn("assistant", "Yes.")
SHAPES: dict[str, tuple[Turn, ...]] = {
    "one question": (ASK,),
    "a system turn first": (Turn("system", "Be brief."), ASK),
    "several turns": (ASK, ANSWERED, ASK),
    "two questions in a row": (ASK, ASK),
    "an answer first": (ANSWERED, ASK),
    "a tool's turn": (ASK, ANSWERED, Turn("tool", "4")),
}


def template_findings(renderer: Renderer) -> list[Diagnosis]:
    """What the template does, each by trying it."""
    tokenizer = renderer.tokenizer
    found = [*shape_findings(renderer)]
    found.append(Diagnosis("prompt", f"a question stands in {tokenizer.decode(renderer.prompt_ids((ASK,)))!r}"))
    names = {i: repr(tokenizer.convert_ids_to_tokens(i)) for i in renderer.stops}
    found.append(Diagnosis("end of a reply", f"{names[renderer.end]} ({renderer.end})"))
    others = ", ".join(f"{name} ({i})" for i, name in sorted(names.items()) if i != renderer.end)
    found.append(Diagnosis("stops", f"also {others}" if others else "that alone"))
    found.append(pad_finding(renderer))
    if renderer.clock:
        said = f"the template writes the time, now {renderer.clock}"
        remedy = "a run keeps the time of its start in config.yaml; --clock TIME sets it"
        found.append(Diagnosis("clock", said, remedy, "note"))
    if THOUGHT in renderer.template or ANSWER in renderer.template:
        opens = tokenizer.decode(renderer.prompt_ids((ASK,))).rstrip().endswith(THOUGHT)
        said = "the prompt opens a thought" if opens else "the template knows thoughts"
        remedy = "an answer without one is trained behind a closed, empty thought" if opens else ""
        found.append(Diagnosis("thoughts", said, remedy, "note" if opens else "fine"))
    return found


def shape_findings(renderer: Renderer) -> list[Diagnosis]:
    """Which shapes of conversation the template takes; those that it refuses, in its own words."""
    taken, refused = [], []
    for name, turns in SHAPES.items():
        try:
            renderer.take(turns, "Yes.")
            taken.append(name)
        except Refused as reason:
            refused.append(Diagnosis("template", f"{name}: {reason}", "such rows are dropped and counted", "note"))
    return [Diagnosis("template", f"takes {', '.join(taken)}"), *refused]


def pad_finding(renderer: Renderer) -> Diagnosis:
    """What fills slots in batches of others' programs."""
    name, i = renderer.tokenizer.pad_token, renderer.tokenizer.pad_token_id
    if i in renderer.stops:
        remedy = "no other token is free: in a batch another program must tell the lengths apart by its mask"
        return Diagnosis("PAD", f"{name!r} ({i}), which also ends a reply", remedy, "note")
    return Diagnosis("PAD", f"{name!r} ({i})")
