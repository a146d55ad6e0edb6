from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mixgrpo.tiny import grammar
from mixgrpo.tiny.text import CLIP_LENGTH, T5_LENGTH, clip_tokenizer, t5_tokenizer, token_ids

LONGEST = "purple triangle and orange diamond on white"


@pytest.mark.parametrize("word", grammar.WORDS)
def test_every_word_is_one_known_token_of_its_own(word: str):
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    start, token, end = clip(word).input_ids
    assert (start, end) == (clip.bos_token_id, clip.eos_token_id)
    assert token not in (start, end)
    assert clip.decode([token]).strip() == word
    (token, _) = t5(word).input_ids
    assert token not in (t5.pad_token_id, t5.eos_token_id, t5.unk_token_id)
    assert t5.decode([token]).strip() == word


def test_the_end_token_has_the_highest_id_as_clip_pooling_wants():
    clip = clip_tokenizer()
    assert clip.eos_token_id == len(clip) - 1


def test_the_longest_caption_is_not_cut_and_padding_is_fixed():
    for tokenizer, length in ((clip_tokenizer(), CLIP_LENGTH), (t5_tokenizer(), T5_LENGTH)):
        ids = token_ids(tokenizer, [LONGEST, "flat small red circle on white"])
        assert ids.shape == (2, length)
        assert tokenizer.decode(ids[0], skip_special_tokens=True).strip() == LONGEST


def test_saved_tokenizers_load_again_with_their_length(tmp_path: Path):
    for tokenizer in (clip_tokenizer(), t5_tokenizer()):
        tokenizer.save_pretrained(tmp_path)
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        assert loaded.model_max_length == tokenizer.model_max_length
        assert token_ids(loaded, [LONGEST]).equal(token_ids(tokenizer, [LONGEST]))
