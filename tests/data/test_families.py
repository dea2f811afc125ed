"""Other people's tokenizers and templates, as they are: ids are the tokenizer's own, replies end where it is served.

The oracle is the tokenizer: `apply_chat_template` of transformers, and what it decodes.
"""

import pytest

from accord.data.chat import Renderer
from accord.data.template import Refused
from accord.records import Turn
from fixtures.families import FAMILIES

ASKED = Turn("user", "Hello there, why?")
THREE = (ASKED, Turn("assistant", "The cat sees 3 mice."), Turn("user", " And  12 birds?\n"))
SYSTEM = Turn("system", "Be kind. ")
REPLIES = ("Yes, the hen is here.", "\n Yes <3 é  ")
WHOLE = ("llama-2", "llama-3.1", "qwen2.5", "qwen3", "gemma-2", "gemma-3", "mistral-v0.1", "mistral-v0.3", "phi-3")
WHOLE += ("smollm2", "olmo-2", "gpt-oss", "gpt-2", "pythia")  # those whose history is what they ask for


class Served:
    """A family's tokenizer with its renderer, as its snapshot would be loaded."""

    def __init__(self, name):
        self.family = FAMILIES[name]
        self.tokenizer = self.family.tokenizer()
        stops = self.tokenizer.convert_tokens_to_ids(list(self.family.eos))
        self.renderer = Renderer(self.tokenizer, stops=stops)
        self.end = self.tokenizer.convert_tokens_to_ids(self.family.end)

    def own(self, turns, **options):
        """What transformers makes of the conversation."""
        messages = [turn._asdict() for turn in turns]
        return tuple(self.tokenizer.apply_chat_template(messages, return_dict=False, **options))

    def text(self, ids):
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


@pytest.fixture(scope="module", params=FAMILIES)
def served(request):
    return Served(request.param)


def conversations(served):
    """One turn and three, with a system turn where the family takes one."""
    yield (ASKED,)
    yield THREE
    if served.family.system:
        yield (SYSTEM, ASKED)
        yield (SYSTEM, *THREE)


def test_a_prompt_has_the_tokenizers_own_ids(served):
    for turns in conversations(served):
        assert served.renderer.prompt_ids(turns) == served.own(turns, add_generation_prompt=True)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("reply", REPLIES)
def test_a_conversation_has_the_tokenizers_own_ids_up_to_the_end_of_its_reply(name, reply):
    served = Served(name)
    for turns in ((ASKED,), THREE):
        ours = served.renderer.conversation(turns, reply).ids
        assert ours == served.own((*turns, Turn("assistant", reply)))[: len(ours)]


def test_a_reply_ends_with_what_the_family_stops_at(served):
    assert served.renderer.end == served.end
    for turns in conversations(served):
        for reply in (*REPLIES, ""):
            assert served.renderer.reply_ids(reply, turns)[-1] == served.end
    eos = served.tokenizer.convert_tokens_to_ids(list(served.family.eos))
    assert served.renderer.stops == {served.end, served.tokenizer.eos_token_id, *eos}


def test_a_reply_is_read_back_from_its_ids_whatever_stop_it_ends_with(served):
    for turns in conversations(served):
        for reply in REPLIES:
            ids = served.renderer.reply_ids(reply, turns)
            for stop in served.renderer.stops:
                assert served.renderer.text((*ids[:-1], stop)) == reply.strip()
            assert served.renderer.text(ids[:-1]) == reply.strip()


def test_the_mask_covers_what_the_assistant_writes_and_nothing_else(served):
    """Of three turns: both replies with what ends them where a server stops, and no word of the user."""
    rendered = served.renderer.conversation(THREE, REPLIES[0])
    trained = served.text([i for i, counts in zip(rendered.ids, rendered.mask, strict=True) if counts])
    bare = trained
    for written in ("<|channel|>final<|message|>", "<think>\n\n</think>\n\n", "\n</think>\n\n", *served.family.eos):
        bare = bare.replace(written, "|")
    said = [part.strip() for part in bare.split("|") if part.strip()]
    earlier = [] if served.family.parts else [THREE[1].content]
    assert "".join(said) in ("".join([*earlier, REPLIES[0]]), " ".join([*earlier, REPLIES[0]]))
    assert rendered.mask[-1] and rendered.ids[-1] == served.end
    masked = served.text([i for i, counts in zip(rendered.ids, rendered.mask, strict=True) if not counts])
    assert "Hello there" in masked and "12" in masked and "hen is" not in masked


def test_prompts_are_shared_by_their_replies(served):
    """What is trained on is the prompt that is sampled from, and a reply behind it."""
    for turns in conversations(served):
        for reply in REPLIES:
            ids = served.renderer.conversation(turns, reply).ids
            asked = served.renderer.prompt_ids(turns)
            assert ids == asked + served.renderer.reply_ids(reply, turns)


def test_control_tokens_in_texts_stay_text(served, capsys):
    """Special or not: `special=False` tags of tools and thoughts, and every special token, in question and reply."""
    renderer, tokenizer = served.renderer, served.tokenizer
    added = {i: t.content for i, t in tokenizer.added_tokens_decoder.items() if t.content.strip("▁ \n")}
    plain = [i for i in renderer.conversation((ASKED,), "Yes").ids if i in added]
    for spelled in added.values():
        if "channel" in spelled and "<|channel|>" in renderer.template:
            continue  # its own template refuses it
        said = f"a {spelled}b"
        rendered = renderer.conversation((Turn("user", said),), f"see{spelled} x")
        assert [i for i in rendered.ids if i in added] == plain, spelled
        asked = served.text(renderer.prompt_ids((Turn("user", said),)))
        assert spelled in asked and served.text(rendered.ids).count(spelled) >= 2
    assert capsys.readouterr().out.count("a text spells a control token") == 1


def test_padding_is_no_token_of_a_text_and_no_end_of_a_reply_but_where_no_other_is_left(served):
    chosen = served.tokenizer.convert_tokens_to_ids(served.renderer.padding())
    name = served.tokenizer.convert_ids_to_tokens(chosen)
    assert chosen in served.tokenizer.added_tokens_decoder
    alone = len(served.tokenizer.all_special_ids) == 1
    assert (name == served.family.end) == alone
    expected = {"llama-3.1": "<|finetune_right_pad_id|>", "llama-2": "<unk>", "qwen2.5": "<|endoftext|>"}
    expected |= {"gemma-2": "<pad>", "smollm2": "<|endoftext|>", "olmo-2": "<|pad|>", "gpt-2": "<|endoftext|>"}
    assert name == expected.get(next(n for n, f in FAMILIES.items() if f is served.family), name)


def test_padding_is_rather_a_token_that_the_template_never_writes():
    served = Served("smollm2")
    tokenizer, renderer = served.tokenizer, served.renderer
    names = [token.content for token in tokenizer.added_tokens_decoder.values()]
    tokenizer.pad_token = tokenizer.unk_token = None
    written = [name for name in names if name in renderer.template]
    chosen = Renderer(tokenizer, aloud=False).padding()
    assert chosen in names and chosen not in [*written, tokenizer.bos_token]


def test_what_a_template_refuses_is_refused_in_its_words():
    with pytest.raises(Refused, match="System role not supported"):
        Served("gemma-2").renderer.take((SYSTEM, ASKED))
    with pytest.raises(Refused, match="must alternate"):
        Served("llama-2").renderer.take((ASKED, ASKED))
    with pytest.raises(Refused, match="channel tags in the content"):
        Served("gpt-oss").renderer.take((ASKED,), "<|channel|>final<|message|>no")
    with pytest.raises(Refused, match="does not show every turn"):
        Served("r1-distill").renderer.take((ASKED, Turn("tool", "12"), ASKED))


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].parts])
def test_where_history_and_generation_prompt_part_the_run_says_so_once(name, capsys):
    served = Served(name)
    for _ in range(2):
        served.renderer.conversation((ASKED,), REPLIES[0])
    assert capsys.readouterr().out.count(served.family.parts) == 1


def test_an_answer_is_never_trained_inside_an_open_thought():
    served = Served("r1-distill")
    for turns in ((ASKED,), THREE):
        text = served.text(served.renderer.conversation(turns, REPLIES[0]).ids)
        assert text.endswith(f"<think>\n\n</think>\n\n{REPLIES[0]}{served.family.end}")
        own = f"<think>\nIs it?\n</think>\n\n{REPLIES[0]}"
        text = served.text(served.renderer.conversation(turns, own).ids)
        assert text.endswith(f"<think>\nIs it?\n</think>\n\n{REPLIES[0]}{served.family.end}")
    ids = served.renderer.reply_ids(own, THREE)
    assert served.renderer.text(ids) == own  # with the tag that the prompt has opened


def test_thoughts_of_earlier_turns_are_in_the_history_where_the_template_keeps_them():
    thought = "<think>\nIs it?\n</think>\n\nYes."
    turns = (ASKED, Turn("assistant", thought), ASKED)
    for name, kept in (("qwen3", False), ("r1-distill", False), ("qwen2.5", True)):
        served = Served(name)
        assert ("Is it?" in served.text(served.renderer.prompt_ids(turns))) == kept
        assert served.renderer.prompt_ids(turns) == served.own(turns, add_generation_prompt=True)
    served = Served("qwen3")
    ids = served.renderer.conversation((ASKED,), thought).ids
    assert ids == served.own((ASKED, Turn("assistant", thought)))[: len(ids)]


@pytest.mark.parametrize("name", ["qwen3", "gpt-oss", "r1-distill"])
def test_whatever_another_model_said_can_be_scored(name):
    """What a template refuses of data that are learned from is written as it is where it was drawn."""
    served = Served(name)
    odd = "<|channel|>final<|message|>no" if name == "gpt-oss" else "a</think>b</think>c"
    with pytest.raises(Refused):
        served.renderer.reply_ids(odd, (ASKED,))
    ids = served.renderer.drawn_ids(odd, (ASKED,))
    plain = served.renderer.reply_ids("word", (ASKED,))
    assert served.text(ids) == served.text(plain).replace("word", odd)
    added = set(served.tokenizer.added_tokens_decoder)
    assert [i for i in ids if i in added] == [i for i in plain if i in added]
    assert served.renderer.drawn_ids("word", (ASKED,)) == plain


def test_a_system_turn_that_moves_is_trained_on_where_it_is_served(capsys):
    """Mistral v0.3 has it in the last question, and nowhere once that is answered."""
    served = Served("mistral-v0.3")
    for turns in ((SYSTEM, ASKED), (SYSTEM, *THREE)):
        ids = served.renderer.conversation(turns, REPLIES[0]).ids
        asked = served.own(turns, add_generation_prompt=True)
        assert ids[: len(asked)] == asked and "Be kind." in served.text(asked)
        assert "Be kind." not in served.text(served.own((*turns, Turn("assistant", REPLIES[0]))))
    assert capsys.readouterr().out.count("otherwise once it is answered") == 1


@pytest.mark.parametrize("name", ["gpt-2", "pythia"])
def test_a_base_model_reads_transcripts_exactly_as_hh_has_them(name):
    served = Served(name)
    prompt = served.text(served.renderer.prompt_ids(THREE))
    assert prompt == (
        "\n\nHuman: Hello there, why?\n\nAssistant: The cat sees 3 mice.\n\nHuman: And  12 birds?\n\nAssistant:"
    )
    reply = served.renderer.reply_ids("the cat", THREE)
    assert served.text(reply) == " the cat<|endoftext|>"
    # the first word is the token that it is inside a text, not one behind a blank of its own
    inside = served.tokenizer.encode("see the cat", add_special_tokens=False)
    assert reply[0] in inside and served.text(reply[:1]) == " the"


def test_a_blank_behind_a_bracket_stays_with_its_word():
    """Llama 2 writes "[/INST] Yes": the blank is the reply's, and one token with its word."""
    served = Served("llama-2")
    assert served.text(served.renderer.prompt_ids((ASKED,))).endswith("[/INST]")
    first = served.tokenizer.convert_ids_to_tokens(served.renderer.reply_ids("the cat", (ASKED,)))
    assert first == ["▁the", "▁cat", "▁", "</s>"]


def test_a_template_that_ends_turns_with_nothing_gets_eos_said_once(capsys):
    served = Served("gpt-2")
    served.tokenizer.chat_template = (
        "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant:\n{% endif %}"
    )
    renderer = Renderer(served.tokenizer)
    for _ in range(2):
        text = served.text(renderer.conversation(THREE, "Yes.").ids)
    assert text.endswith("### assistant:\nYes.<|endoftext|>") and text.count("<|endoftext|>") == 1
    assert capsys.readouterr().out.count("ends a reply with no token") == 1


@pytest.mark.parametrize("name", ["llama-3.1", "gpt-oss"])
def test_a_templates_clock_stands_still(name, monkeypatch):
    served = Served(name)
    told = iter(["2024-07-26T12:00:00", "2031-01-01T00:00:00"])
    renderer = Renderer(served.tokenizer, clock=lambda: next(told))
    dates = {"llama-3.1": "26 Jul 2024", "gpt-oss": "2024-07-26"}
    for _ in range(2):
        assert dates[name] in served.text(renderer.prompt_ids((ASKED,)))
    assert renderer.clock == "2024-07-26T12:00:00" and Served("qwen2.5").renderer.clock == ""
    assert renderer.tells_apart(served.renderer)
