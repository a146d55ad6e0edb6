from itertools import chain, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixgrpo.errors import UserError
from mixgrpo.tiny import grammar

SETS = list(product(grammar.FORMS, grammar.SPLITS))
NUM = {"train": 240, "validation": 96, "test": 192}


@pytest.mark.parametrize("dataset", grammar.FORMS)
def test_every_caption_is_what_its_attributes_say(dataset: str):
    form = grammar.FORMS[dataset]
    for caption in chain(*(grammar.captions(dataset, split) for split in grammar.SPLITS)):
        attributes = grammar.parse(caption)
        assert form.format(**vars(attributes)) == caption
        named = {slot for slot in grammar.SLOTS if getattr(attributes, slot) is not None}
        assert {slot for slot in named if f"{{{slot}}}" in form} == named - {"count"}


def test_labels_index_the_answers_and_mark_the_unsaid():
    attributes = grammar.parse("purple cross and cyan ring on pink")
    answers = dict(zip(grammar.SLOTS, attributes.labels(), strict=True))
    assert answers["style"] == answers["size"] == -1
    assert grammar.COLORS[answers["color"]] == "purple"
    assert grammar.SHAPES[answers["second_shape"]] == "ring"
    assert grammar.COUNTS[answers["count"]] == "two"


@given(st.text() | st.lists(st.sampled_from(grammar.WORDS), min_size=5, max_size=8).map(" ".join))
def test_parse_raises_nothing_else_and_invents_nothing(text: str):
    try:
        attributes = grammar.parse(text)
    except UserError:
        return
    said = [form.format(**vars(attributes)) for form in grammar.FORMS.values()]
    assert " ".join(text.split()) in said


@pytest.mark.parametrize(
    "caption",
    ["", "red circle", "red flat circle small on white", "flat small red circle on table"],
)
def test_parse_refuses(caption: str):
    with pytest.raises(UserError, match="outside the grammar"):
        grammar.parse(caption)


@pytest.mark.parametrize(("dataset", "split"), SETS)
def test_splits_hold_enough_unique_captions(dataset: str, split: str):
    sample = grammar.sample_captions(dataset, split, NUM[split])
    assert len(set(sample)) == NUM[split]
    assert set(sample) <= set(grammar.captions(dataset, split))


@pytest.mark.parametrize(("dataset", "split"), SETS)
def test_held_out_pairs_stay_in_their_split(dataset: str, split: str):
    own = set(grammar.HELD_OUT_PAIRS.get(split, ()))
    held_out = set(chain(*grammar.HELD_OUT_PAIRS.values()))
    for caption in grammar.captions(dataset, split):
        pairs = set(grammar.parse(caption).pairs)
        assert pairs & held_out <= own
        assert bool(pairs & own) == (split != "train")


def test_held_out_pairs_vary_and_leave_every_word_to_training():
    test = grammar.HELD_OUT_PAIRS["test"]
    assert {shape for _, shape in test} == set(grammar.SHAPES)
    assert len({color for color, _ in test}) == len(test)
    words = set(" ".join(grammar.captions("tiny_hpd", "train")).split())
    assert words == set(grammar.WORDS) - {"and"}


def test_sampling_depends_on_the_seed_and_grows_by_adding():
    first = grammar.sample_captions("tiny_pick", "train", 20)
    assert grammar.sample_captions("tiny_pick", "train", 50)[:20] == first
    assert grammar.sample_captions("tiny_pick", "train", 20, seed=1) != first


def test_the_two_datasets_are_visibly_different():
    one, two = (
        [grammar.parse(c) for c in grammar.sample_captions(d, "train", 240)] for d in grammar.FORMS
    )
    assert {a.count for a in one} == {"one"}
    assert {a.count for a in two} == {"two"}
    assert {a.style for a in one} == set(grammar.STYLES)
    assert {a.style for a in two} == {None}
    assert {a.ground for a in one} == set(grammar.GROUNDS)
    assert {a.ground for a in two} == set(grammar.LIGHT_GROUNDS)


@pytest.mark.parametrize("num", [0, -1, 10_000])
def test_an_impossible_number_of_captions_is_refused(num: int):
    with pytest.raises(UserError, match="wanted 1 to 240"):
        grammar.sample_captions("tiny_hpd", "test", num)


@pytest.mark.parametrize(("dataset", "split"), [("hpdv2", "test"), ("tiny_hpd", "held_out")])
def test_an_unknown_dataset_or_split_lists_what_there_is(dataset: str, split: str):
    with pytest.raises(UserError, match=r"tiny_hpd, tiny_pick.*train, validation, test"):
        grammar.captions(dataset, split)
