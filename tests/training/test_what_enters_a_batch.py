"""No sample without a trained token is ever learned from, and no reply is cut."""

import pytest

from accord.engine.texts import conversation_group, document_groups
from accord.records import Demonstration, Document, Prompt, Turn
from accord.run import RunFolder
from accord.stages.sft.config import Sft
from accord.stages.shared import drop_long


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_a9_every_piece_of_a_document_has_a_token_to_learn(renderer, extra):
    """A9: whole pieces and `extra` tokens more; a last piece of one token predicts nothing and is left out."""
    document = Document("the cat runs and the dog sees a red stone", "by hand")
    ids = renderer.document(document.text)
    length = next(n for n in range(3, len(ids) + 1) if len(ids) % n == extra)
    groups = document_groups(renderer, [document], length)
    assert all(group.trained > 0 for group in groups)
    pieces = [ids[i : i + length] for i in range(0, len(ids), length)]
    assert [group.replies[0] for group in groups] == [piece for piece in pieces if len(piece) > 1]


def test_a9_a_conversation_that_is_too_long_is_left_out_whole(renderer, tmp_path, capsys):
    prompt = Prompt((Turn("user", "why"),), "", "by hand")
    demonstrations = [Demonstration(prompt, "the cat"), Demonstration(prompt, "stone " * 50)]
    groups = [conversation_group(renderer, d, "assistant") for d in demonstrations]
    with RunFolder("sft", Sft(model="m", data="d", out=str(tmp_path / "run"))) as run:
        kept, left = drop_long(groups, demonstrations, 20, run)
    assert kept == groups[:1] and left == demonstrations[:1] and "dropped 1 of 2" in capsys.readouterr().out
    assert kept[0].trained == len(renderer.reply_ids("the cat"))
