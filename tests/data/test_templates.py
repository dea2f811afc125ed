"""What a chat template writes, and where in it every content stands: each by hand, with templates of a line."""

import re

import pytest

from accord.data.template import NO_THOUGHT, PLAIN_TEMPLATE, ChatTemplate, Refused, Written, WrittenReply
from accord.errors import BadInput
from accord.records import Turn

CONTROL = re.compile(r"<s>|</s>|<\|end\|>")
ASKS = "{% if add_generation_prompt %}<assistant>{% endif %}"
TURNS = "<s>{% for m in messages %}<{{ m.role }}>{{ m.content }}<|end|>\n{% endfor %}" + ASKS
TALK = (Turn("system", "Be."), Turn("user", "Why so?"), Turn("assistant", "Since."), Turn("user", "And?"))
SHOWN = "<s><system>Be.<|end|>\n<user>Why so?<|end|>\n<assistant>Since.<|end|>\n<user>And?<|end|>\n<assistant>"
APART = "replies are written where they are asked for"
THOUGHT = "<think>\nIs it?\n</think>\n\nYes."
CLOSE = "\n</think>\n\n"


class Words:
    """As much of a tokenizer as a template asks for."""

    def __init__(self, source, bos="<s>", eos="</s>"):
        self.chat_template, self.eos_token = source, eos
        self.special_tokens_map = {"bos_token": bos, "eos_token": eos} if bos else {"eos_token": eos}

    def get_chat_template(self):
        return self.chat_template


def template(source, clock="2024-07-26T12:05:00", **tokens):
    return ChatTemplate(Words(source, **tokens), CONTROL, lambda: clock)


def always(_):
    return True


def never(_):
    return False


def cut(text, spans):
    return [text[a:b] for a, b in spans]


# Prompts


def test_a_prompt_says_where_contents_and_earlier_replies_stand():
    stops = []
    written = template(TURNS).prompt(TALK, lambda closing: not stops.append(closing))
    assert written.text == SHOWN and written.note == "" and stops == ["<|end|>"]
    assert cut(SHOWN, written.contents) == ["Be.", "Why so?", "Since.", "And?"]
    assert written.contents == ((11, 14), (28, 35), (54, 60), (74, 78))
    assert written.replies == ((54, 67),)
    assert template(TURNS).prompt(TALK, never) == Written(SHOWN, written.contents, ((54, 60),), "")


def test_a_reply_that_nothing_closes_ends_with_its_words():
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}; {% endfor %}"
    source += "{% if add_generation_prompt %}assistant: {% endif %}"
    written = template(source).prompt(TALK, lambda closing: closing[-1] == ">")
    assert written.text == "system: Be.; user: Why so?; assistant: Since.; user: And?; assistant: "
    assert cut(written.text, written.replies) == ["Since."]


def test_what_closes_an_earlier_reply_stands_right_behind_it():
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}<|end|>{% endif %}"
    written = template(source + "{% endfor %}" + ASKS).prompt(TALK, always)
    assert cut(written.text, written.replies) == ["Since.<|end|>"]
    assert written.text.endswith("<user>And?<assistant>")


def test_what_a_history_writes_before_a_reply_is_the_assistants_to_write():
    source = TURNS.replace("{{ m.content }}", "{% if m.role == 'assistant' %}[ok] {% endif %}{{ m.content }}")
    made = template(source)
    written = made.prompt(TALK, always)
    assert cut(written.text, written.replies) == ["[ok] Since.<|end|>"] and written.note == ""
    asked = made.prompt(TALK[:2], always).text
    assert made.reply(TALK[:2], "Since.", asked) == WrittenReply("[ok] Since.<|end|>", ((5, 11),), "[ok] ", "")
    assert made.plain_reply(TALK[:2], " Since.\n") == WrittenReply("[ok] Since.<|end|>", ((5, 11),), "[ok] ", "")


def test_an_earlier_answer_that_is_empty_is_not_learned_from():
    turns = (TALK[1], Turn("assistant", " "), TALK[3])
    written = template(TURNS).prompt(turns, always)
    assert written.replies == () and cut(written.text, written.contents) == ["Why so?", " ", "And?"]
    thought = (TALK[1], Turn("assistant", "<think>Hm</think>"), TALK[3])
    written = template(TURNS).prompt(thought, always)
    assert cut(written.text, written.replies) == ["<think>Hm</think><|end|>"]


def test_a_content_that_is_shown_twice_has_both_places():
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}|{{ m.content }}<|end|>{% endfor %}" + ASKS
    made = template(source)
    written = made.prompt(TALK[1:], always)
    assert cut(written.text, written.contents) == ["Why so?"] * 2 + ["Since."] * 2 + ["And?"] * 2
    assert cut(written.text, written.replies) == ["Since.|Since.<|end|>"]
    reply = made.reply(TALK[1:2], "Since.", made.prompt(TALK[1:2], always).text)
    assert reply == WrittenReply("Since.|Since.<|end|>", ((0, 6), (7, 13)), "", "")


def test_a_turn_that_is_not_shown_is_refused_unless_it_says_nothing():
    hiding = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}<|end|>{% endfor %}" + ASKS
    made = template(hiding)
    with pytest.raises(Refused, match=r"does not show every turn of a conversation \(system\)"):
        made.prompt(TALK[:2], always)
    assert made.prompt((Turn("system", " \n"), TALK[1]), always).text == "<user>Why so?<|end|><assistant>"
    silent = hiding.replace("system", "assistant")
    empty = (TALK[1], Turn("assistant", " "), TALK[3])
    assert template(silent).prompt(empty, always).replies == ()
    with pytest.raises(Refused, match=r"does not show every turn of a conversation \(assistant\)"):
        template(silent).reply(TALK[:2], "Since.", "")


# Contents as templates write them


@pytest.mark.parametrize(
    ("trims", "shown"),
    [
        ("", " \n a b\n \n"),
        (".strip()", "a b"),
        (".lstrip()", "a b\n \n"),
        (".rstrip()", " \n a b"),
        (".strip('\\n')", " \n a b\n "),
        (".rstrip('\\n')", " \n a b\n "),
    ],
)
def test_a_trimmed_content_is_found_as_it_is_written(trims, shown):
    source = TURNS.replace("m.content", f"m.content{trims}")
    written = template(source).prompt((Turn("user", " \n a b\n \n"),), always)
    assert cut(written.text, written.contents) == [shown]
    assert written.text == f"<s><user>{shown}<|end|>\n<assistant>"


@pytest.mark.parametrize(("trims", "shown"), [(".lstrip('\\n')", " x \n\n"), (".strip('\\n')", " x ")])
def test_line_ends_alone_may_be_trimmed(trims, shown):
    source = TURNS.replace("m.content", f"m.content{trims}")
    written = template(source).prompt((Turn("user", "\n\n x \n\n"),), always)
    assert cut(written.text, written.contents) == [shown]


def test_of_two_forms_that_fit_the_longer_is_the_content():
    """Blanks behind a content may be the template's or the content's own: what was given comes first."""
    source = "{% for m in messages %}{{ m.content }}{% endfor %}"
    written = template(source).prompt((Turn("user", " a  "),), always)
    assert written.contents == ((0, 4),)
    led = template(source.replace("m.content", "m.content.lstrip()"))
    assert led.prompt((Turn("user", " a  "),), always).contents == ((0, 3),)
    trimmed = template(source.replace("m.content", "m.content.strip()"))
    assert trimmed.prompt((Turn("user", " a  "),), always).contents == ((0, 1),)


@pytest.mark.parametrize(
    "source",
    [
        TURNS.replace("m.content", "m.content | upper"),
        # what the template writes before or behind hangs on what is said
        "{{ 'A' if 'accord' in messages[0].content else 'B' }}{{ messages[0].content }}",
        "{{ messages[0].content }}{{ '' if 'accord' in messages[0].content else '!' }}",
    ],
)
def test_a_content_that_cannot_be_found_is_refused(source):
    with pytest.raises(Refused, match="writes a content otherwise than it was given"):
        template(source).prompt((Turn("user", "why"),), always)


# Replies


def test_a_reply_ends_with_the_first_control_token_behind_it():
    made = template(TURNS.replace("<|end|>", "~<|end|></s>"))
    asked = made.prompt(TALK[:2], always).text
    expected = WrittenReply("Since.~<|end|>", ((0, 6),), "", "")
    assert made.reply(TALK[:2], "Since.", asked) == made.plain_reply(TALK[:2], " Since.\n") == expected
    stops = []
    made.prompt(TALK, lambda closing: not stops.append(closing))
    assert stops == ["~<|end|>"]


def test_a_reply_behind_which_no_control_token_stands_gets_eos():
    made = template(TURNS.replace("<|end|>", " ~ "))
    asked = made.prompt(TALK[:2], always).text
    note = "the chat template ends a reply with no token; EOS is put there"
    assert made.reply(TALK[:2], "Since.", asked) == WrittenReply("Since. ~</s>", ((0, 6),), "", note)
    assert made.plain_reply(TALK[:2], "Since. ") == WrittenReply("Since. ~</s>", ((0, 6),), "", "")


def test_a_prompt_that_is_written_otherwise_once_it_is_answered_is_noted():
    made = template("{% if messages[-1].role == 'user' %}?{% endif %}" + TURNS)
    asked = made.prompt(TALK[:2], always).text
    reply = made.reply(TALK[:2], "Since.", asked)
    assert reply[:3] == ("Since.<|end|>", ((0, 6),), "")
    assert reply.note == (
        "the chat template writes a prompt otherwise once it is answered; it is trained on as it is asked"
    )


def test_a_history_that_has_replies_elsewhere_is_said_and_not_trained_on():
    made = template(TURNS.replace("<assistant>", "<|end|><asks for an answer by the assistant>"))
    written = made.prompt(TALK, always)
    parts = (
        "the chat template asks for a reply behind 'er by the assistant>', and its history has it behind "
        f"'<|end|>\\n<assistant>'; {APART}"
    )
    assert written.replies == ()
    assert written.note == f"{parts}; earlier replies, which stand elsewhere, are not trained on"
    reply = made.reply(TALK[:2], "Since.", made.prompt(TALK[:2], always).text)
    assert reply == WrittenReply("Since.<|end|>", ((0, 6),), "", parts)
    long = made._opening(made._taken_apart(TALK[:2]), "a history that is longer than twenty letters")
    assert "history has it behind ' than twenty letters'" in long[1]
    # EOS goes where nothing ends a reply; that the places differ is what is said
    bare = template(TURNS.replace("<assistant>", "<asks>").replace("<|end|>", ""))
    reply = bare.reply(TALK[:2], "Since.", "")
    assert reply.text == "Since.</s>" and reply.note.startswith("the chat template asks for a reply behind")


@pytest.mark.parametrize(
    ("asks", "opening"),
    [("[go]", ""), ("<think>\n", NO_THOUGHT), ("<think></think>", ""), (" <think>", NO_THOUGHT)],
)
def test_what_a_history_leaves_out_before_a_reply(asks, opening):
    source = TURNS.replace("<assistant>", f"<assistant>{asks}")
    for blank in ("", " "):
        made = template(source.replace("<{{ m.role }}>", "<{{ m.role }}>" + blank))
        reply = made.reply(TALK[:2], "Since.", made.prompt(TALK[:2], always).text)
        assert reply.opening == opening and reply.text == f"{opening}Since.<|end|>"
        assert cut(reply.text, reply.contents) == ["Since."]
        if not (blank and asks.startswith(" ")):
            assert reply.note == (
                f"the chat template asks for a reply behind {asks!r}, which its history does not have; {APART}"
            )


# Thoughts

KEEPS = "{# </think> #}" + TURNS
DROPS = TURNS.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] | trim }}").replace(
    "<assistant>", "<assistant><think>\n"
)


def test_a_thought_and_its_answer_are_two_contents():
    turns = (TALK[1], Turn("assistant", THOUGHT), TALK[3])
    for made in (template(TURNS), template(KEEPS)):
        written = made.prompt(turns, always)
        assert cut(written.text, written.contents) == ["Why so?", "Is it?", "Yes.", "And?"]
        assert cut(written.text, written.replies) == [f"{THOUGHT}<|end|>"]
        reply = made.reply(turns, THOUGHT, written.text)
        assert (reply.text, reply.opening, reply.note) == (f"{THOUGHT}<|end|>", "<think>\n", "")
        assert cut(reply.text, reply.contents) == ["Is it?", "Yes."]


def test_a_thought_whose_tag_the_prompt_has_opened_is_one_where_the_template_knows_thoughts():
    opened = f"Is it?{CLOSE}Yes."
    for source, expected in ((KEEPS, ["Is it?", "Yes."]), (TURNS, [opened])):
        made = template(source)
        reply = made.reply(TALK[:2], opened, made.prompt(TALK[:2], always).text)
        assert reply.text == f"{opened}<|end|>" and cut(reply.text, reply.contents) == expected
    # a user's words are never taken apart
    written = template(KEEPS).prompt((Turn("user", THOUGHT),), always)
    assert cut(written.text, written.contents) == [THOUGHT]


def test_a_reply_keeps_its_own_thought_where_a_template_asks_for_one_and_drops_it_from_the_history():
    made = template(DROPS)
    turns = (TALK[1], Turn("assistant", THOUGHT), TALK[3])
    asked = made.prompt(turns, always).text
    assert asked == "<s><user>Why so?<|end|>\n<assistant>Yes.<|end|>\n<user>And?<|end|>\n<assistant><think>\n"
    note = f"the chat template asks for a reply behind '<think>\\n', which its history does not have; {APART}"
    own = made.reply(turns, "<think>\nOr not?\n</think>\n\nIndeed.", asked)
    assert own == WrittenReply(f"Or not?{CLOSE}Indeed.<|end|>", ((0, 7), (18, 25)), "", note)
    none = made.reply(turns, "Indeed.", asked)
    assert none == WrittenReply(f"{NO_THOUGHT}Indeed.<|end|>", ((11, 18),), NO_THOUGHT, note)
    assert made.plain_reply(turns, "a</think>b ") == WrittenReply(
        f"{NO_THOUGHT}a</think>b<|end|>", ((11, 21),), NO_THOUGHT, note
    )


def test_a_thought_that_the_history_drops_is_not_written_where_none_is_asked_for():
    turns, reply = TALK[:2], "<think>\nOr not?\n</think>\n\nIndeed."
    made = template(DROPS.replace("<think>\n", "[go]"))
    note = f"the chat template asks for a reply behind '[go]', which its history does not have; {APART}"
    asked = made.prompt(turns, always).text
    assert made.reply(turns, reply, asked) == WrittenReply("Indeed.<|end|>", ((0, 7),), "", note)
    # a history that writes every thought as an empty one
    emptied = "{% if m.role == 'assistant' %}<think>" + NO_THOUGHT + "{% endif %}"
    made = template(DROPS.replace("<think>\n", "<think>").replace("<{{ m.role }}>", "<{{ m.role }}>" + emptied))
    asked = made.prompt(turns, always).text
    assert asked.endswith("<assistant><think>")
    assert made.reply(turns, reply, asked) == WrittenReply(f"{NO_THOUGHT}Indeed.<|end|>", ((11, 18),), NO_THOUGHT, "")


def test_a_thought_that_the_prompt_has_opened_is_closed_once():
    made = template(TURNS.replace("<assistant>", "<assistant><think>\n") + "{# </think> #}")
    asked = made.prompt(TALK[:2], always).text
    reply = made.reply(TALK[:2], f"Or not?{CLOSE}Indeed.", asked)
    assert reply[:3] == (f"Or not?{CLOSE}Indeed.<|end|>", ((0, 7), (18, 25)), "")


# What is told and what cannot be read


def test_the_plain_template_writes_transcripts():
    source = template("")
    assert source.source == PLAIN_TEMPLATE and source._tokenizer.chat_template == PLAIN_TEMPLATE
    turns = (Turn("system", " Be. "), Turn("user", " Why so?\n"), Turn("assistant", " Since. "), Turn("tool", " 7 "))
    assert source.render(turns, opens=True) == "<s>Be.\n\nHuman: Why so?\n\nAssistant: Since.7\n\nAssistant:"
    assert source.render(turns[1:3], opens=False) == "<s>\n\nHuman: Why so?\n\nAssistant: Since.</s>"
    for bos in ("</s>", ""):
        assert template("", bos=bos).render(turns[1:2], opens=False) == "\n\nHuman: Why so?"


def test_a_template_that_asks_for_the_time_is_told_the_same_throughout():
    asked = []
    told = ChatTemplate(
        Words("{{ strftime_now('%d %b %Y, %H.%M') }}"), CONTROL, lambda: asked.append(1) or "2024-07-26T12:05:00"
    )
    assert [told.render(TALK, opens=opens) for opens in (True, False)] == ["26 Jul 2024, 12.05"] * 2
    assert len(asked) == 1 and told.clock == "2024-07-26T12:05:00"
    assert template(TURNS).clock == ""


def test_a_template_that_cannot_be_read_is_refused():
    with pytest.raises(BadInput, match=r"the chat template cannot be read \(.*\); mend it, or take it out"):
        template("{% for m in messages %}")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ raise_exception('no such role') }}", "the chat template: no such role"),
        ("{{ 1 + 'a' }}", "the chat template: unsupported operand"),
        ("{{ '%d' % 'a' }}", "the chat template: %d format"),
        ("{{ 'abc'.index('x') }}", "the chat template: substring not found"),
    ],
)
def test_what_a_template_raises_is_a_refusal(source, said):
    with pytest.raises(Refused, match=re.escape(said)):
        template(source).render(TALK, opens=True)


def test_a_template_sees_neither_tools_nor_documents():
    source = "{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }} {{ messages | length }}"
    assert template(source).render(TALK, opens=False) == "True True False 4"
    assert template(source).render(TALK[:1], opens=True) == "True True True 1"
