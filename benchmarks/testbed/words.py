"""Word-level tokenizers of the two classes that FLUX uses: every word of every level is one token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer, T5Tokenizer

from ditstack_adapters.model.embedded.shapes import BACKGROUNDS, COLOURS, SHAPES, TEXTURES

LENGTH = 16  # text tokens; the longest caption of every level fits
GRAMMAR = "a on in the and object background center top bottom left right above below of"
WORDS = sorted({*SHAPES, *COLOURS, *BACKGROUNDS, *TEXTURES, *GRAMMAR.split()})
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def t5_tokenizer() -> T5Tokenizer:
    """A unigram model in which a known word is always cheaper than its letters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -20.0)]
    pieces = [(f"▁{word}", -1.0) for word in WORDS] + [(letter, -20.0) for letter in LETTERS]
    return T5Tokenizer(vocab=special + pieces, extra_ids=0, model_max_length=LENGTH)


def learn_pieces() -> dict[str, Any]:
    """Vocabulary and merges of a byte-pair model trained until each word is one token."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    alphabet = [letter + end for end in ("", "</w>") for letter in LETTERS]
    trainer = trainers.BpeTrainer(
        vocab_size=10_000,
        min_frequency=1,
        end_of_word_suffix="</w>",
        show_progress=False,
        initial_alphabet=[*LETTERS],
    )
    trained.train_from_iterator(WORDS, trainer)
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    vocab = {word: index for index, word in enumerate(dict.fromkeys([*SPECIAL, *alphabet, *pieces]))}
    return {"vocab": vocab, "merges": json.loads(trained.to_str())["model"]["merges"]}


def clip_tokenizer() -> CLIPTokenizer:
    """The result of `learn_pieces`, kept in a file: ties break at random, and the weights depend on it."""
    pieces = json.loads(Path(__file__).with_name("clip_pieces.json").read_text())
    merges: Any = [tuple(pair) for pair in pieces["merges"]]
    return CLIPTokenizer(vocab=pieces["vocab"], merges=merges, model_max_length=LENGTH + 4)
