"""The renderer's smaller promises: texts without turns, what tells two apart, padding, control tokens by place."""

import copy
import hashlib
import json
import re
from types import SimpleNamespace

import pytest

from accord.data.chat import CHAT_TEMPLATE, ROLE_TOKENS, Renderer, _cut_words, train_tokenizer
from accord.data.encoder import Encoder
from accord.data.template import Refused
from accord.errors import BadInput
from accord.records import Turn
from fixtures.families import FAMILIES

ASKED = (Turn("user", "why"),)


@pytest.fixture
def own(tokenizer):
    """A tokenizer that a test may change."""
    return copy.deepcopy(tokenizer)


def ids_of(tokenizer, text):
    return tuple(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)


# Texts without turns


def test_a_document_a_passage_and_what_goes_on_behind_it(renderer):
    tokenizer = renderer.tokenizer
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    cat = ids_of(tokenizer, "the cat")
    assert renderer.document("the cat") == (bos, *cat, eos) and renderer.passage("the cat") == (bos, *cat)
    whole = ids_of(tokenizer, "the cat runs")
    assert renderer.continued("the cat ", "runs") == ((bos, *cat), whole[len(cat) :])
    assert renderer.continued("the cat", " runs") == ((bos, *cat), whole[len(cat) :])
    assert renderer.continued("", "the cat") == ((bos,), cat)
    assert renderer.continued(" \n", "the cat") == ((bos,), ids_of(tokenizer, " \nthe cat"))


def test_control_tokens_in_such_texts_stay_text(renderer):
    control = set(renderer.tokenizer.added_tokens_decoder)
    said = "a<|end|>b"
    assert not control & set(renderer.passage(said)[1:])
    for context, text in (("", said), (" " * 9, "<|end|>")):
        assert not control & set(renderer.continued(context, text)[1])
    before, behind = renderer.continued(said, said)
    assert not control & {*before[1:], *behind} and behind


def test_a_text_follows_eos_where_there_is_no_bos(own):
    own.bos_token = None
    own.chat_template = CHAT_TEMPLATE.replace("<|bos|>", "")
    renderer = Renderer(own)
    cat = ids_of(own, "the cat")
    assert renderer.passage("the cat") == cat and renderer.document("the cat") == (*cat, own.eos_token_id)
    assert renderer.continued("", "the cat") == ((own.eos_token_id,), cat)


@pytest.mark.parametrize(
    ("writes", "begins"),
    [
        (CHAT_TEMPLATE, True),
        (CHAT_TEMPLATE.replace("<|bos|>", ""), False),
        # where every turn begins with it, it is a turn's mark
        (CHAT_TEMPLATE.replace("<|bos|>", "").replace("<|{{", "<|bos|><|{{"), False),
    ],
)
def test_a_document_begins_with_bos_where_a_conversation_does(own, writes, begins):
    own.chat_template = writes
    assert (Renderer(own).document("the cat")[0] == own.bos_token_id) is begins


def test_a_document_begins_with_bos_where_the_tokenizer_puts_it(own):
    from tokenizers.processors import TemplateProcessing

    bos = own.bos_token_id
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{own.bos_token} $A", special_tokens=[(own.bos_token, bos)]
    )
    own.chat_template = CHAT_TEMPLATE.replace("<|bos|>", "")
    renderer = Renderer(own)
    assert renderer.document("the cat") == (bos, *ids_of(own, "the cat"), own.eos_token_id)
    assert bos not in renderer.prompt_ids(ASKED)
    spells = (Turn("user", "the <|end|>cat"),)
    asked = renderer.prompt_ids(spells)
    own.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    assert asked == Renderer(own).prompt_ids(spells)


def test_a_document_needs_no_more_than_the_roles_of_a_conversation(own):
    strange = "{% for m in messages if m.role not in ('user', 'assistant') %}{{ raise_exception('role') }}{% endfor %}"
    own.chat_template = strange + CHAT_TEMPLATE
    assert Renderer(own).document("the cat")[0] == own.bos_token_id


def test_role_tokens_and_the_words_for_them(renderer):
    tokenizer = renderer.tokenizer
    assert renderer.role_words() == {
        tokenizer.convert_tokens_to_ids(f"<|{role}|>"): ids_of(tokenizer, f"{role}:")
        for role in ("system", "user", "assistant", "tool")
    }
    assert len(ROLE_TOKENS) == 4 and Renderer(FAMILIES["gpt-2"].tokenizer()).role_words() == {}


def test_a_long_word_is_cut_for_the_merges_alone():
    assert _cut_words("a" * 255 + " b") == "a" * 255 + " b"
    assert _cut_words("a" * 600) == " ".join(["a" * 256, "a" * 256, "a" * 88])
    assert _cut_words("a" * 256) == "a" * 256 + " "


def test_a_tokenizer_that_was_trained_here():
    tokenizer = train_tokenizer(["the cat 12"] * 9, 300)
    assert len(tokenizer) == 256 + 7 + 6  # bytes, control tokens, and merges up to two words
    assert len(train_tokenizer(["the cat 12"] * 9, 266)) == 266
    assert tokenizer.convert_ids_to_tokens(list(range(7))) == ["<|pad|>", "<|bos|>", "<|end|>", *ROLE_TOKENS]
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == ("<|pad|>", "<|bos|>", "<|end|>")
    assert tokenizer.chat_template == CHAT_TEMPLATE
    words = tokenizer.convert_ids_to_tokens(ids_of(tokenizer, "the cat 12"))
    assert words == ["Ġthe", "Ġcat", "Ġ", "1", "2"]
    assert tokenizer.decode(ids_of(tokenizer, "a , b")) == " a , b"


# Replies and what is said


def test_a_reply_is_read_back_without_its_end_alone(renderer):
    ids = renderer.reply_ids(" the cat ")
    assert renderer.text(ids) == renderer.text(ids[:-1]) == renderer.text(list(ids)) == "the cat"
    assert renderer.text((*ids, *ids)) == "the cat <|end|>  the cat" and renderer.text(()) == ""


def test_a_thought_that_the_prompt_opens_is_read_back_with_its_tag(own):
    thinks = "{% if message['role'] == 'assistant' %}<think>\n{% endif %}"
    own.chat_template = CHAT_TEMPLATE.replace("{{ message['content']", thinks + "{{ message['content']").replace(
        "<|assistant|>{% endif", "<|assistant|><think>\n{% endif"
    )
    renderer = Renderer(own)
    assert renderer.text(ids_of(own, "the cat")) == "<think>\n the cat"
    assert Renderer(copy.deepcopy(own), aloud=False).reply_ids("the cat")[-1] == own.eos_token_id
    own.chat_template = own.chat_template.replace("<think>\n", "<think></think>")
    assert Renderer(own).text(ids_of(own, "the cat")) == "the cat"  # a thought that is closed already


def test_a_mask_is_as_long_as_its_ids_whatever_is_trained_on(renderer):
    turns = (*ASKED, Turn("assistant", "the cat"), *ASKED)
    asked, reply = renderer.prompt_ids(turns), renderer.reply_ids("a dog", turns)
    shown = renderer.conversation(turns, "a dog", train_on="reply")
    assert (shown.ids, shown.mask) == (asked + reply, (False,) * len(asked) + (True,) * len(reply))


def test_blanks_before_marks_are_read_back_as_they_are(renderer):
    for said in ("the cat , so .", "it is n't , is it ?", "do n't ' s"):
        assert renderer.text(renderer.reply_ids(said)) == said


def test_earlier_replies_that_are_not_trained_on_are_said_once(own, capsys):
    own.chat_template = CHAT_TEMPLATE.replace("<|assistant|>{% endif", "<|tool|>{% endif")
    renderer = Renderer(own)
    turns = (*ASKED, Turn("assistant", "the cat"), *ASKED)
    assert not any(renderer.conversation(turns, "so").mask[:-3])
    renderer.prompt_ids((*turns, Turn("assistant", "the dog"), *ASKED))
    assert capsys.readouterr().out.count("earlier replies, which stand elsewhere, are not trained on\n") == 1


def test_a_stop_of_ones_own_ends_a_reply(own):
    stop = own.convert_tokens_to_ids("<|user|>")
    renderer = Renderer(own, stops=[stop])
    assert renderer.stops == {own.eos_token_id, stop} and renderer.end == own.eos_token_id
    cat = ids_of(own, "the cat")
    assert renderer.text((*cat, stop)) == "the cat"
    assert renderer.vocabulary == set(own.get_vocab().values())


def test_what_a_template_takes_is_taken_and_what_it_refuses_refused(own):
    own.chat_template = (
        "{% for m in messages if m.content == 'no' %}{{ raise_exception('no') }}{% endfor %}" + CHAT_TEMPLATE
    )
    renderer = Renderer(own)
    renderer.take(ASKED, "yes", "so")
    for turns, replies in (((Turn("user", "no"),), ()), (ASKED, ("no",)), (ASKED, ("yes", "no"))):
        with pytest.raises(Refused, match="the chat template: no"):
            renderer.take(turns, *replies)
    with pytest.raises(BadInput, match="a prompt must end where a reply is due, after a user, system or tool turn"):
        renderer.take(())


@pytest.mark.parametrize("aloud", [True, False])
def test_notes_are_said_once_or_never(own, capsys, aloud):
    own.chat_template = "{{ strftime_now('%d') }}" + CHAT_TEMPLATE
    renderer = Renderer(own, clock=lambda: "2024-07-26T12:00:00", aloud=aloud)
    for _ in range(2):
        renderer.prompt_ids((Turn("user", "<|end|>"),))
        renderer.prompt_ids((Turn("user", "a <|end|>"),))
    told = "note: the chat template writes the time; it is told 2024-07-26T12:00:00 throughout (--clock)\n"
    told += "note: a text spells a control token; it stays text, where the tokenizer alone would read the token\n"
    assert capsys.readouterr().out == told * aloud


def test_two_renderers_are_told_apart_by_all_that_decides(own):
    def made(change=lambda tokenizer: None, clock="2024-07-26T12:00:00"):
        tokenizer = copy.deepcopy(own)
        tokenizer.chat_template = "{{ strftime_now('%d') }}" + CHAT_TEMPLATE
        change(tokenizer)
        return Renderer(tokenizer, clock=lambda: clock, aloud=False)

    one, same = made(), made()
    assert not one.tells_apart(same) and one.identity == same.identity
    told = sorted(one.tokenizer.get_vocab().items()), one.template, "2024-07-26T12:00:00", one.end
    assert one.identity == hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def ends(tokenizer):
        tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|{{ '' if 1 else '' }}tool|>")

    others = [
        made(clock="2024-07-27T12:00:00"),
        made(lambda tokenizer: tokenizer.add_tokens(["another"])),
        made(lambda tokenizer: setattr(tokenizer, "chat_template", tokenizer.chat_template + " ")),
        made(ends),
    ]
    for other in others:
        assert one.tells_apart(other) and other.tells_apart(one) and one.identity != other.identity
    other = made()
    other.end = one.end + 1
    assert one.tells_apart(other)


# Padding

NAMES = {0: "<x>", 1: "<reserved_1>", 2: "<unk>", 3: "<my_Pad>", 4: "</s>", 5: "<eot>", 6: "<y>"}


def padded(names, *, pad=None, template="", ordinary=(), bos="<bos>", special=lambda name: True):
    """What pads a tokenizer whose `</s>` ends a reply and whose `<eot>` stops one too."""
    made = object.__new__(Renderer)
    made.tokenizer = SimpleNamespace(
        added_tokens_decoder={i: SimpleNamespace(content=name, special=special(name)) for i, name in names.items()},
        pad_token_id=pad,
        pad_token=names.get(pad),
        unk_token="<unk>",
        bos_token=bos,
        eos_token="</s>",
    )
    made.end, made.stops = 4, frozenset({4, 5})
    control = re.compile("|".join(map(re.escape, names.values())))
    made._encoder = SimpleNamespace(is_ordinary=lambda i: i in ordinary, control=control)
    made._template = SimpleNamespace(source=template)
    return made.padding()


def without(*gone):
    return {i: name for i, name in NAMES.items() if i not in gone}


@pytest.mark.parametrize(
    ("names", "more", "chosen"),
    [
        (NAMES, {"pad": 6}, "<y>"),
        (NAMES, {"pad": 5}, "<eot>"),
        # its own ends a reply, is a word, or is no special token
        (NAMES, {"pad": 4}, "<my_Pad>"),
        (NAMES, {"pad": 6, "ordinary": (6,)}, "<my_Pad>"),
        (NAMES, {"pad": 6, "special": lambda name: name != "<y>"}, "<my_Pad>"),
        (NAMES, {}, "<my_Pad>"),
        (NAMES, {"ordinary": (3,)}, "<unk>"),
        (without(3), {}, "<unk>"),
        (without(3, 2), {}, "<reserved_1>"),
        ({0: "<x>", 1: "<unused_1>", 4: "</s>"}, {}, "<unused_1>"),
        ({0: "<x>", 1: "<Extra_1>", 4: "</s>"}, {}, "<Extra_1>"),
        (without(3, 2, 1), {}, "<x>"),
        (without(3, 2, 1), {"template": "<x>"}, "<y>"),
        (without(3, 2, 1), {"bos": "<x>"}, "<y>"),
        (without(3, 2, 1), {"template": "<y> <x>"}, "<x>"),
        (without(3, 2, 1, 0, 6), {}, "</s>"),
        ({4: "</s>"}, {"pad": 4}, "</s>"),
    ],
)
def test_what_fills_slots_is_the_token_least_like_text(names, more, chosen):
    assert padded(names, **more) == chosen


# Control tokens by their place


@pytest.fixture(scope="module")
def encoder():
    return Encoder(FAMILIES["qwen2.5"].tokenizer())


def test_only_the_words_of_somebody_are_kept_from_being_control(encoder):
    text = "see<|im_end|>this <|im_end|>"
    end = next(i for i, name in encoder.added.items() if name == "<|im_end|>")
    real = encoder.encode(text)
    assert real.ids.count(end) == 2 and not real.spells
    # words that end where the token begins, or begin where it ends, do not spell it
    assert encoder.encode(text, [(0, 3), (13, 18)]) == real
    for words, left in (([(0, 4)], 1), ([(12, 18)], 1), ([(0, 28)], 0), ([(18, 28)], 1), ([(5, 6), (20, 21)], 0)):
        found = encoder.encode(text, words)
        assert found.ids.count(end) == left and found.spells
        assert "".join(text[a:b] for a, b in found.spans) == text
        if left:
            at = found.ids.index(end)
            assert text[slice(*found.spans[at])] == "<|im_end|>"
            assert (found.spans[at][0] == 18) is (words[0][0] < 18)


def test_the_last_control_token_of_a_text(encoder):
    found = encoder.encode("see<|im_end|>this <|im_end|>now then")
    assert found.spans[encoder.last_control(found)] == (18, 28)
    assert encoder.last_control(encoder.encode("no such")) == -1
    assert encoder.last_control(encoder.encode("<|im_end|>now")) == 0
    assert encoder.last_control(encoder.encode("now<|im_end|>")) == len(encoder.encode("now").ids)
    assert encoder.encode("") == ([], [], False)


def test_a_text_that_goes_on_has_no_start_of_its_own():
    encoder = Encoder(FAMILIES["llama-2"].tokenizer())
    whole = encoder._backend.encode("\nthe cat", add_special_tokens=False).ids
    before = encoder._backend.encode("\n", add_special_tokens=False).ids
    assert encoder.encode_after("the cat") == whole[len(before) :] != encoder.encode("the cat").ids
    spelled = encoder.encode_after("the </s>cat", [(4, 9)])
    control = next(i for i, name in encoder.added.items() if name == "</s>")
    assert control not in spelled and control in encoder.encode_after("the </s>cat", [(0, 4)])
    assert control not in encoder.encode_after("the </s>cat", [(3, 5)])
    assert encoder.encode_after("</s>the </s>cat", [(8, 12)]).count(control) == 1
    assert encoder.encode_after("</s></s>cat", [(4, 8)]).count(control) == 1


@pytest.mark.parametrize(("name", "begins"), [("llama-2", True), ("mistral-v0.3", False), ("qwen2.5", None)])
def test_what_stands_between_control_tokens_is_encoded_as_the_tokenizer_does(name, begins):
    """Behind a control token a stretch is a text of its own, or one that goes on; at the start always the former."""
    encoder = Encoder(FAMILIES[name].tokenizer())
    token, control = next((i, name) for i, name in encoder.added.items() if name in ("</s>", "<|im_end|>"))
    bare = encoder._bare
    said = f"the {control}cat"
    first = encoder.encode(said, [(0, len(said))])
    assert first.ids == bare.encode(said, add_special_tokens=False).ids
    behind = encoder.encode(control + said, [(len(control), 99)])
    going = bare.encode("\n" + said, add_special_tokens=False).ids
    going = going[len(bare.encode("\n", add_special_tokens=False).ids) :]
    assert behind.ids == [token, *(first.ids if begins else going)]
    assert (first.ids != going) is (begins is not None)
    shown = "".join((control + said)[a:b] for a, b in behind.spans)
    assert shown == control + said and behind.spans[1][0] == len(control)


def test_a_word_that_was_made_special_is_ordinary_and_what_no_text_can_write_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "cat": 2, "dog": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<unk>", "</s>", "cat"])
    added = {i: SimpleNamespace(content=name) for i, name in enumerate(["<unk>", "</s>", "cat"])}
    encoder = Encoder(SimpleNamespace(backend_tokenizer=backend, added_tokens_decoder=added))
    assert [encoder.is_ordinary(i) for i in range(4)] == [False, False, True, True]
    assert encoder.encode("dog cat", [(0, 7)]) == ([3, 2], [(0, 3), (4, 7)], True)
    assert encoder.encode("dog </s>", [(0, 4)]).ids == [3, 1]
    with pytest.raises(Refused, match="a text spells a control token that the tokenizer cannot write as text"):
        encoder.encode("dog </s>", [(0, 8)])


def test_a_token_that_is_found_in_what_was_made_of_a_text_is_the_templates():
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"<unk>": 0, "dog": 1, "<end>": 2}, unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    backend.add_tokens([AddedToken("<end>", normalized=True)])
    added = {2: SimpleNamespace(content="<end>")}
    encoder = Encoder(SimpleNamespace(backend_tokenizer=backend, added_tokens_decoder=added))
    assert encoder.encode("Dog <END>", [(0, 3)]) == ([1, 2], [(0, 3), (4, 9)], False)


@pytest.mark.parametrize("name", ["gpt-2", "qwen2.5", "llama-2"])
def test_a_reply_is_encoded_with_the_end_of_its_prompt(name, capsys):
    renderer = Renderer(FAMILIES[name].tokenizer())
    spells, earlier = Turn("user", "a </s><|endoftext|>b"), (*ASKED, Turn("assistant", "the cat"))
    for turns in ((*earlier, *ASKED), (spells,), (*earlier, spells)):
        ids = renderer.conversation(turns, "the dog").ids
        assert ids[: len(renderer.prompt_ids(turns))] == renderer.prompt_ids(turns)
        assert ids[-1] == renderer.end
    assert "is encoded apart" not in capsys.readouterr().out


def test_a_reply_whose_first_blanks_would_join_the_prompts_last_ones_is_encoded_apart_and_said_so(capsys):
    tokenizer = train_tokenizer(["a\n\n\n\nb"] * 9, 280)
    breaks = CHAT_TEMPLATE.replace("}}|>{{", "}}|>\n{{")
    tokenizer.chat_template = breaks.replace("<|assistant|>{%", "<|assistant|>\n{%")
    renderer = Renderer(tokenizer)
    said = "\n\n\nb <|end|>"
    reply = renderer.reply_ids(said, ASKED)
    assert renderer.conversation(ASKED, said).ids == renderer.prompt_ids(ASKED) + reply
    assert reply == (*renderer._encoder.encode_after(f"{said}<|end|>", [(0, len(said))]),)
    assert reply.count(renderer.end) == 1 and renderer.text(reply) == said.strip()
    note = "a reply whose first blanks the tokenizer would join to its prompt's last ones is encoded apart"
    assert capsys.readouterr().out.count(note) == 1


def test_a_tokenizer_without_a_backend_is_refused():
    class Slow:
        pass

    with pytest.raises(
        BadInput, match=r"^Slow has no tokenizer\.json; load it where it works and save it as a fast one"
    ):
        Encoder(Slow())


def test_blanks_that_were_added_are_text_and_the_longest_control_token_is_found():
    backend = FAMILIES["gpt-2"].tokenizer().backend_tokenizer
    names = {7: "<a>", 8: "<a>b", 9: "  "}
    added = {i: SimpleNamespace(content=name) for i, name in names.items()}
    encoder = Encoder(SimpleNamespace(backend_tokenizer=backend, added_tokens_decoder=added))
    assert encoder.added == {7: "<a>", 8: "<a>b"}
    assert encoder.control.findall("<a>b <a>") == ["<a>b", "<a>"]
    none = Encoder(SimpleNamespace(backend_tokenizer=backend, added_tokens_decoder={}))
    assert none.control.search("") is None and none.control.search("<a>") is None
