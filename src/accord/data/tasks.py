"""Rows of question sets as questions: multiple choice, what comes next, short answers, numbers, plain text.

The published shapes are told apart by their columns, and written as lm-evaluation-harness writes them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from accord.data.formats import Row
from accord.data.question_rows import QuestionRows, gather
from accord.errors import BadInput
from accord.records import content_hash

QuestionKind = Literal["choice", "next", "answer", "number", "text", "known", "unknown"]
BLANK = " "  # between a context and what follows it, unless that begins with white space itself


@dataclass(frozen=True, slots=True)
class TaskQuestion:
    """A context and what may follow it.

    `choice`: of the options the place `right` should be the likeliest; there is one context for all of them, or one for
    each. `next`: the only option should be what greedy decoding says. `answer` and `number`: a reply is drawn greedily
    and should be one of `answers`. `text`: the only option is a document. `known` and
    `unknown`: whether the answer can be known. `group` is a subject or paradigm, `solution`
    what a solved example says where that is more than the right option.
    """

    kind: QuestionKind
    contexts: tuple[str, ...]
    options: tuple[str, ...] = ()
    right: int = 0
    answers: tuple[str, ...] = ()
    group: str = ""
    solution: str = ""
    heading: str = ""

    @property
    def id(self) -> str:
        return content_hash("question", self.kind, self.contexts, self.options, self.right, self.answers)

    @property
    def solved(self) -> str:
        """The question with its right answer, as an example before another one."""
        if self.options:
            context, option = self.pairs()[self.right]
            return context + option
        return self.contexts[0] + joined(self.solution or self.answers[0])

    def pairs(self) -> list[tuple[str, str]]:
        """(context, what follows it) of every option."""
        contexts = self.contexts * len(self.options) if len(self.contexts) == 1 else self.contexts
        options = self.options * len(contexts) if len(self.options) == 1 else self.options
        return list(zip(contexts, options, strict=True))


def joined(text: str) -> str:
    """What follows a context, with a blank between unless it begins with one."""
    return text if not text or text[0].isspace() else BLANK + text


QuestionSet = QuestionRows[TaskQuestion]


def read_questions(source: str, *, delimiter: str = "", columns: Mapping[str, str], max_rows: int = 0) -> QuestionSet:
    """The questions of a file. `delimiter` stands behind every context, before what follows it.

    Raises BadInput for columns that are no known shape, and for a cell of the wrong type.
    """

    def make(value: Mapping[str, Any], row: Row) -> TaskQuestion | str:
        return _question(value, row, delimiter)

    return gather(source, make, "question", columns=columns, max_rows=max_rows)


def with_examples(question: TaskQuestion, examples: Sequence[TaskQuestion], shots: int) -> TaskQuestion:
    """The question behind its heading and the first `shots` examples of its group, solved."""
    own = [example for example in examples if example.group == question.group][:shots]
    before = question.heading + "".join(f"{example.solved}\n\n" for example in own)
    return TaskQuestion(
        question.kind,
        tuple(before + context for context in question.contexts),
        question.options,
        question.right,
        question.answers,
        question.group,
        question.solution,
    )


def _question(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    for columns, make in SHAPES.items():
        if columns <= value.keys():
            return make(value, row, delimiter)
    known = "; ".join(", ".join(sorted(columns)) for columns in SHAPES)
    raise BadInput(f"{row.where}: no set of questions has these columns ({', '.join(value)}); known are {known}")


def _choices(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    options = _texts(value["choices"], row, "choices")
    return _choice((_text(value["query"], row, "query") + delimiter,), options, value["gold"], row)


def _schema(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    contexts = _texts(value["context_options"], row, "context_options")
    continuation = _text(value["continuation"], row, "continuation")
    return _choice(tuple(c + delimiter for c in contexts), (continuation,), value["gold"], row)


def _choice(contexts: tuple[str, ...], options: Sequence[str], gold: Any, row: Row) -> TaskQuestion | str:
    if isinstance(gold, bool) or not isinstance(gold, int):
        raise BadInput(f"{row.where}: gold is {type(gold).__name__}, not the place of the right option")
    if not 0 <= gold < max(len(contexts), len(options)):
        return "gold is no place among the options"
    return TaskQuestion("choice", contexts, tuple(map(joined, options)), gold)


def _next(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    continuation = _text(value["continuation"], row, "continuation")
    if not continuation.strip():
        return "nothing follows the context"
    return TaskQuestion(
        "next", (_text(value["context"], row, "context") + delimiter,), (joined(continuation),), group=_group(value)
    )


def _written(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    answers = (_text(value["answer"], row, "answer"), *_texts(value.get("aliases") or [], row, "aliases"))
    kind: QuestionKind = "number" if NUMBER.fullmatch(answers[0].strip()) else "answer"
    return TaskQuestion(kind, (_text(value["context"], row, "context") + delimiter,), answers=answers)


def _subject(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    options = [_text(value[letter], row, letter) for letter in "ABCD"]
    said = _text(value["answer"], row, "answer").strip()
    if said not in tuple("ABCD"):
        return "the answer is none of A, B, C and D"
    listed = "".join(f"\n{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    context = f"{_text(value['question'], row, 'question').strip()}{listed}\nAnswer:{delimiter}"
    subject = str(value.get("subject") or "")
    about = f" about {subject.replace('_', ' ')}" if subject else ""
    heading = f"The following are multiple choice questions (with answers){about}.\n\n"
    letters = tuple(map(joined, "ABCD"))
    return TaskQuestion("choice", (context,), letters, "ABCD".index(said), group=subject, heading=heading)


def _minimal_pair(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    _refuse(delimiter, row)
    pair = tuple(_text(value[f"sentence_{side}"], row, f"sentence_{side}") for side in ("good", "bad"))
    return TaskQuestion("choice", ("",), pair, group=str(value.get("UID") or ""))


def _truthful(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    wrong = [part.strip() for part in _text(value["Incorrect Answers"], row, "Incorrect Answers").split(";")]
    options = (_text(value["Best Answer"], row, "Best Answer").strip(), *filter(None, wrong))
    if len(options) < 2:
        return "no wrong answer stands beside the right one"
    context = f"Q: {_text(value['Question'], row, 'Question').strip()}\nA:{delimiter}"
    return TaskQuestion("choice", (context,), tuple(map(joined, options)), group=str(value.get("Category") or ""))


def _worked(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    solution = _text(value["answer"], row, "answer")
    _steps, mark, number = solution.rpartition("####")
    if not mark or not number.strip():
        return "the answer does not end in #### and a number"
    context = f"Question: {_text(value['question'], row, 'question')}\nAnswer:{delimiter}"
    return TaskQuestion("number", (context,), answers=(number.strip(),), solution=solution)


def _document(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    _refuse(delimiter, row)
    text = _text(value["text"], row, "text")
    return TaskQuestion("text", ("",), (text,)) if text.strip() else "the text is empty"


def _answerable(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    if not isinstance(value["answerable"], bool):
        raise BadInput(f"{row.where}: answerable is {type(value['answerable']).__name__}, not true or false")
    return _knowable(value, value["answerable"], value.get("answer") or [], row, delimiter)


def _labelled(value: Mapping[str, Any], row: Row, delimiter: str) -> TaskQuestion | str:
    label = _text(value["label"], row, "label")
    if label not in ("known", "unknown"):
        return "the label is neither known nor unknown"
    return _knowable(value, label == "known", value.get("answer") or [], row, delimiter)


def _knowable(value: Mapping[str, Any], known: bool, said: Any, row: Row, delimiter: str) -> TaskQuestion | str:
    _refuse(delimiter, row)
    answers = (said,) if isinstance(said, str) else _texts(said, row, "answer")
    if known and not answers:
        return "a question that can be known has no answer"
    return TaskQuestion("known" if known else "unknown", (_text(value["question"], row, "question"),), answers=answers)


SHAPES: dict[frozenset[str], Callable[[Mapping[str, Any], Row, str], TaskQuestion | str]] = {
    frozenset({"query", "choices", "gold"}): _choices,
    frozenset({"context_options", "continuation", "gold"}): _schema,
    frozenset({"context", "continuation"}): _next,
    frozenset({"context", "answer"}): _written,
    frozenset({"question", "A", "B", "C", "D", "answer"}): _subject,
    frozenset({"sentence_good", "sentence_bad"}): _minimal_pair,
    frozenset({"Question", "Best Answer", "Incorrect Answers"}): _truthful,
    frozenset({"question", "answerable"}): _answerable,
    frozenset({"question", "label"}): _labelled,
    frozenset({"question", "answer"}): _worked,
    frozenset({"text"}): _document,
}
NUMBER = re.compile(r"-?[$0-9.,]*[0-9][$0-9.,]*")


def last_number(text: str) -> str:
    """The last number in a text, without currency, thousands' commas and a full stop behind it; "" if there is none."""
    found = NUMBER.findall(text)
    return re.sub(r"[$,]", "", found[-1]).rstrip(".") if found else ""


def is_right(question: TaskQuestion, reply: str) -> bool:
    """Whether a drawn reply says one of the answers: of numbers its last one, else all of it but articles and marks.

    The reply to a `known` question is a sentence: the words of an answer must stand in it.
    """
    if question.kind == "known":
        words = f" {plain_words(reply)} "
        return any(f" {plain_words(answer)} " in words for answer in question.answers if plain_words(answer))
    if question.kind == "number":
        said, asked = last_number(reply), last_number(question.answers[0])
        try:
            return float(said) == float(asked)
        except ValueError:
            return said == asked != ""
    return plain_words(reply) in {plain_words(answer) for answer in question.answers} - {""}


def plain_words(text: str) -> str:
    """Lower case, without punctuation, articles and spare blanks: TriviaQA's own comparison (Joshi et al. 2017)."""
    bare = re.sub(r"[^\w\s]|_", " ", text.lower())
    return " ".join(word for word in bare.split() if word not in ("a", "an", "the"))


def _refuse(delimiter: str, row: Row) -> None:
    if delimiter:
        raise BadInput(f"{row.where}: a delimiter has no effect where nothing stands before a text; leave it out")


def _group(value: Mapping[str, Any]) -> str:
    return str(value.get("category") or "")


def _text(value: Any, row: Row, column: str) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{row.where}: {column} is {type(value).__name__}, not a text")
    return value


def _texts(value: Any, row: Row, column: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadInput(f"{row.where}: {column} is {type(value).__name__}, not a list of texts")
    return tuple(_text(each, row, column) for each in value)
