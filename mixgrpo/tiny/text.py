"""Tokenizers and text encoders of the two kinds that FLUX has; every word of the grammar is one token."""

import string
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from torch import Tensor
from transformers import CLIPTextConfig, CLIPTokenizer, T5Config, T5TokenizerFast

from mixgrpo.tiny.grammar import WORDS

CLIP_LENGTH = 12
"""Tokens of a padded CLIP prompt: seven words, start and end, and some room."""
T5_LENGTH = 8
"""Tokens of a padded T5 prompt: seven words and the end."""
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
WORD_START = "\u2581"


def merges_of(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, in order, that make each of `words` one token.

    The most frequent pair is merged first, of equals the alphabetically first: unlike a library's trainer,
    whose order of equals changes from run to run.

    >>> merges_of(["an", "can"])
    [('a', 'n</w>'), ('c', 'an</w>')]
    """
    split = [[*word[:-1], word[-1] + WORD_END] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for symbols in split for pair in pairwise(symbols)):
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        split = [_merged(symbols, merges[-1]) for symbols in split]
    return merges


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


def clip_tokenizer(length: int = CLIP_LENGTH) -> CLIPTokenizer:
    """Byte-pair encoding, merged until every word of the grammar is one token.

    The end token has the highest id: `CLIPTextModel` pools where the id is largest.
    """
    letters, merges = string.ascii_lowercase, merges_of(WORDS)
    tokens = [*letters, *(letter + WORD_END for letter in letters)]
    tokens += dict.fromkeys(first + second for first, second in merges)
    vocab = {token: index for index, token in enumerate([*tokens, START, END])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)


def t5_tokenizer() -> T5TokenizerFast:
    """Unigram over whole words; any other word is the unknown token."""
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (WORD_START, -10.0)]
    vocab += [(WORD_START + word, -2.0) for word in WORDS]
    return T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=T5_LENGTH)


def token_ids(tokenizer: CLIPTokenizer | T5TokenizerFast, captions: list[str]) -> Tensor:
    """(N, length) ids, padded to the tokenizer's own length."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def clip_text_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    """Two layers of `width`."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=width,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def t5_config(tokenizer: T5TokenizerFast, width: int) -> T5Config:
    """Two layers of `width`."""
    return T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
