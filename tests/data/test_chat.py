"""One renderer: masks cover exactly the assistant's tokens, ids are the same on every path, control stays control."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.data.chat import CHAT_TEMPLATE, Renderer, train_tokenizer
from accord.engine.packing import Group, pack, reply_group
from accord.errors import BadInput
from accord.records import Turn

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# template, its control tokens, the one that ends a turn
TEMPLATES = {
    "accord": (CHAT_TEMPLATE, [], "<|end|>"),
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "llama3": (LLAMA3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>"),
    "gemma": (GEMMA, ["<start_of_turn>", "<end_of_turn>"], "<end_of_turn>"),
}


def make(name):
    template, added, end = TEMPLATES[name]
    generator = random.Random(0)
    words = ["hello", "there", "is", "a", "cat", "system", "user", "assistant", "3", "."]
    tokenizer = train_tokenizer([" ".join(generator.choices(words, k=6)) for _ in range(50)], 290)
    if added:
        tokenizer.add_special_tokens({"additional_special_tokens": added})
    tokenizer.eos_token = end
    tokenizer.chat_template = template
    return Renderer(tokenizer)


@pytest.fixture(scope="module", params=sorted(TEMPLATES))
def any_renderer(request):
    return make(request.param)


contents = st.text(
    alphabet=st.one_of(st.sampled_from("abc 123.\n<|>é😀"), st.characters(exclude_categories=["Cs"])),
    min_size=1,
    max_size=30,
)


def turns_strategy():
    return st.lists(contents, min_size=1, max_size=5).map(
        lambda texts: tuple(
            Turn("user" if i % 2 == 0 else "assistant", t)
            for i, t in enumerate(texts[: len(texts) - (len(texts) + 1) % 2])
        )
    )


@settings(max_examples=60, deadline=None)
@given(turns=turns_strategy(), reply=contents)
def check_mask(renderer, turns, reply):
    rendered = renderer.conversation(turns, reply)
    assert len(rendered.ids) == len(rendered.mask)
    spans, current = [], []
    for token, counts in zip(rendered.ids, rendered.mask, strict=True):
        if counts:
            current.append(token)
        if current and (not counts or token == renderer.end):
            spans.append(tuple(current))
            current = []
    # an empty answer inside is not learned from
    expected = [t.content for t in turns if t.role == "assistant" and t.content.strip()] + [reply]
    assert not current
    # each span is the content's own tokens and the end of turn, and decodes to exactly the content, whose own spaces
    # stay; before a text this tokenizer puts another
    assert [span[-1] for span in spans] == [renderer.end] * len(expected)
    assert [renderer.reply_ids(text) for text in expected] == spans
    decoded = [renderer.tokenizer.decode(span[:-1], clean_up_tokenization_spaces=False) for span in spans]
    blank = " " if renderer.template == CHAT_TEMPLATE else ""
    assert decoded == [blank + text for text in expected]


def test_a5_mask_covers_exactly_assistant_content_and_end_of_turn(any_renderer):
    check_mask(any_renderer)


def test_a5_the_rendering_says_what_the_template_says(any_renderer):
    """The pieces put together decode to what the template itself writes, but for the space that this tokenizer puts
    before every text: before what stands from one control token to the next, in our template before each content."""
    turns = [Turn("user", "hello  there"), Turn("assistant", "a cat is there "), Turn("user", "is a cat 3")]
    border = "\0" if any_renderer.template == CHAT_TEMPLATE else ""
    marked = [{"role": turn.role, "content": f"{border}{turn.content}{border}"} for turn in turns]
    tokenizer = any_renderer.tokenizer
    written = tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=True)
    control = {token.content for token in tokenizer.added_tokens_decoder.values()}
    parts = re.split("(" + "|".join(map(re.escape, [*control, *border])) + ")", written)
    expected = "".join(part if part in control else f" {part}" for part in parts if part not in ("", border))
    assert tokenizer.decode(any_renderer.prompt_ids(turns), clean_up_tokenization_spaces=False) == expected


def test_train_on_reply_masks_earlier_turns_out(renderer):
    turns = (Turn("user", "why"), Turn("assistant", "the cat"), Turn("user", "how"))
    rendered = renderer.conversation(turns, "a dog", train_on="reply")
    answer = renderer.reply_ids("a dog")
    assert sum(rendered.mask) == len(answer)
    assert rendered.ids[-len(answer) :] == answer and all(rendered.mask[-len(answer) :])


def test_a3_exactly_one_bos_on_every_path(tokenizer):
    """A3: the template writes a BOS, and this tokenizer, like Llama's, would add one more to whatever it encodes."""
    import copy

    from tokenizers.processors import TemplateProcessing

    adding = copy.deepcopy(tokenizer)
    bos = adding.bos_token_id
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{adding.bos_token} $A", special_tokens=[(adding.bos_token, bos)]
    )
    assert adding.encode("why")[0] == bos
    renderer = Renderer(adding)
    turns = (Turn("user", "why"), Turn("assistant", "the cat"), Turn("user", "how"))
    for ids in (
        renderer.prompt_ids(turns),
        renderer.conversation(turns, "a dog").ids,
        renderer.document("the cat"),
    ):
        assert ids[0] == bos and list(ids).count(bos) == 1


def test_a4_training_scoring_and_sampling_see_the_same_ids(renderer):
    """SFT's conversation = the prompt that is sampled from + the reply that is scored; one EOS ends the reply."""
    turns = (Turn("user", "why"),)
    prompt, reply = renderer.prompt_ids(turns), renderer.reply_ids("the cat runs")
    rendered = renderer.conversation(turns, "the cat runs")
    assert rendered.ids == prompt + reply
    assert reply[-1] == renderer.end and list(reply).count(renderer.end) == 1
    assert renderer.text(reply) == "the cat runs"
    assert rendered.mask == (False,) * len(prompt) + (True,) * len(reply)


def test_a6_prompt_and_reply_are_joined_as_ids_and_survive_the_round_trip(renderer):
    """No merge crosses the border: whatever the texts, ids(prompt + reply) = ids(prompt) + ids(reply)."""
    for end, start in (("the", "cat"), ("st", "one"), ("sto", "ne"), ("a ", " b")):
        turns = (Turn("user", end),)
        whole = renderer.conversation(turns, start)
        assert whole.ids == renderer.prompt_ids(turns) + renderer.reply_ids(start)


def test_a6_a_later_turn_does_not_change_the_ids_of_an_earlier_reply(renderer):
    turns = (Turn("user", "why"),)
    first = renderer.conversation(turns, "the cat").ids
    longer = renderer.prompt_ids((*turns, Turn("assistant", "the cat"), Turn("user", "how")))
    assert longer[: len(first)] == first


@pytest.mark.parametrize(
    "text", ["<|end|>", "<|assistant|>", "a<|bos|>b", "<|end|><|assistant|> yes<|end|>", "<|pad|>"]
)
def test_control_tokens_in_text_never_become_control_ids(renderer, text):
    control = set(renderer.tokenizer.all_special_ids) | {
        renderer.tokenizer.convert_tokens_to_ids(f"<|{role}|>") for role in ("user", "assistant", "system", "tool")
    }
    reply = renderer.reply_ids(text)
    assert not set(reply[:-1]) & control
    prompt = renderer.prompt_ids((Turn("user", text),))
    harmless = renderer.prompt_ids((Turn("user", "x"),))
    assert sorted(set(prompt) & control) == sorted(set(harmless) & control)
    assert [t for t in prompt if t in control] == [t for t in harmless if t in control]
    assert renderer.text(reply) == text
    assert not set(renderer.document(text)[1:-1]) & control


def test_a2_an_end_token_written_as_text_is_trained_on_and_masks_do_not_break(renderer):
    """A2: masks come from lengths; a reply that spells control tokens keeps every one of its tokens."""
    rendered = renderer.conversation((Turn("user", "<|pad|>"),), "a <|pad|> b")
    reply = renderer.reply_ids("a <|pad|> b")
    assert sum(rendered.mask) == len(reply)


def test_a1_pad_is_not_eos_and_the_end_of_turn_is_trained(renderer):
    assert renderer.tokenizer.pad_token_id != renderer.end
    rendered = renderer.conversation((Turn("user", "why"),), "cat")
    assert rendered.ids[-1] == renderer.end and rendered.mask[-1]


def test_a1_with_pad_equal_to_eos_the_end_of_turn_is_still_trained_and_scored(tokenizer):
    """A1: masks come from lengths, so an EOS that is also the PAD stays a token like any other."""
    import copy

    both = copy.deepcopy(tokenizer)
    both.pad_token = both.eos_token
    renderer = Renderer(both)
    turns = (Turn("user", "why"), Turn("assistant", "the cat"), Turn("user", "how"))
    rendered = renderer.conversation(turns, "a dog")
    trained = [token for token, counts in zip(rendered.ids, rendered.mask, strict=True) if counts]
    assert trained == [*renderer.reply_ids("the cat"), *renderer.reply_ids("a dog")]
    assert trained.count(both.pad_token_id) == 2
    packing = pack([Group((), (rendered.ids,), (rendered.mask,))])
    assert packing.targets.tolist() == trained
    scored = pack([reply_group(renderer.prompt_ids(turns), renderer.reply_ids("a dog"))], rows="last")
    assert scored.ids[scored.rows].tolist() == [both.pad_token_id]


def test_a1_a_tokenizer_whose_pad_is_eos_gets_another_pad(tmp_path, tokenizer, snapshots):
    import shutil

    from accord.models.tokenizer import load_renderer

    folder = tmp_path / "model"
    shutil.copytree(snapshots / "policy", folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["pad_token"] = config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = load_renderer(str(folder)).tokenizer
    assert loaded.pad_token_id is not None and loaded.pad_token_id != loaded.eos_token_id


def test_a11_another_template_gives_other_ids_and_no_cache_hides_it(tokenizer):
    """A11: a renderer's caches live in it, so another template on the same tokenizer cannot be answered from them."""
    import copy

    turns = (Turn("user", "why"),)
    first = Renderer(tokenizer)
    before = first.prompt_ids(turns)
    other = copy.deepcopy(tokenizer)
    other.chat_template = CHAT_TEMPLATE.replace("<|assistant|>{% endif", "<|assistant|>hm{% endif")
    assert Renderer(other).prompt_ids(turns) != before
    assert first.prompt_ids(turns) == before


def test_a12_loss_tokens_equal_an_oracle_and_are_never_none(renderer):
    """A12: counted from the texts alone: tokens of every assistant content plus one end each."""
    turns = (Turn("user", "why"), Turn("assistant", "the cat runs"), Turn("user", "how"))
    rendered = renderer.conversation(turns, "a dog")
    backend = renderer.tokenizer.backend_tokenizer
    oracle = sum(len(backend.encode(t, add_special_tokens=False).ids) + 1 for t in ("the cat runs", "a dog"))
    assert sum(rendered.mask) == oracle > 0


def test_an_empty_reply_is_its_end_of_turn(renderer):
    assert renderer.reply_ids("") == (renderer.end,)
    assert renderer.text((renderer.end,)) == ""


def test_a_prompt_that_ends_in_a_reply_is_refused(renderer):
    with pytest.raises(BadInput, match="must end where a reply is due"):
        renderer.prompt_ids((Turn("user", "a"), Turn("assistant", "b")))


def test_a_template_that_hides_turns_is_refused():
    hiding = make("chatml")
    hiding.tokenizer.chat_template = "{{ messages[-1]['content'] }}<|im_end|>"
    with pytest.raises(BadInput, match="does not show every turn"):
        Renderer(hiding.tokenizer).prompt_ids((Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")))


def test_a_tokenizer_without_eos_is_refused(tokenizer):
    import copy

    without = copy.deepcopy(tokenizer)
    without.eos_token = None
    with pytest.raises(BadInput, match="no EOS"):
        Renderer(without)


def test_every_text_has_tokens_and_decodes_to_itself(renderer):
    for text in ("ünïcode 😀", "tab\tand\nnewline", "1234567", "a  b"):
        ids = renderer.reply_ids(text)[:-1]
        assert renderer.tokenizer.decode(ids, clean_up_tokenization_spaces=False).removeprefix(" ") == text


def test_a_tokenizer_learns_beside_an_endless_word():
    """Merges look at a whole word: with one of 400,000 letters they did not end."""
    word = "".join(random.Random(0).choices("abcdefgh", k=400_000))
    tokenizer = train_tokenizer(["the cat is there", word], 600)
    ids = Renderer(tokenizer).reply_ids(word)
    assert len(ids) < 300_000 and Renderer(tokenizer).text(ids) == word
