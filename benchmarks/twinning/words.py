"""Tokenizers of the video twin: a Llama's that reads HunyuanVideo's long template as 95 marks, and a CLIP's."""

from __future__ import annotations

from typing import Any

from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from ditstack_adapters.model.embedded.shapes import BACKGROUNDS
from twinning.moving import COLOURS, MOTIONS, SHAPES

WORDS = [*SHAPES, *COLOURS, *BACKGROUNDS, *MOTIONS, "a", "object", "on", "background", "moving", "standing"]
MARK, END = "~", "<|eot_id|>"
CROPPED: Any = DEFAULT_PROMPT_TEMPLATE["crop_start"]  # tokens that the pipeline takes the template's beginning for
LENGTH = 12  # text tokens: the longest caption, the end, and a spare one
CLIP_LENGTH = 77  # the pipeline asks for so many, whatever the tokenizer says; pooling does not see the padding


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word. What a template says before the user speaks becomes marks, just as many as are cropped."""
    vocab = {word: index for index, word in enumerate(["<pad>", "<unk>", END, MARK, *WORDS])}
    words = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    head = Regex(r"^<\|start_header_id\|>system[\s\S]*user<\|end_header_id\|>\s*")
    words.normalizer = normalizers.Sequence(
        [normalizers.Replace(head, f"{MARK} " * CROPPED), normalizers.Replace(END, f" {END}")]
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # END is no special token: those are cut out before the head is looked for
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")


def clip_tokenizer() -> CLIPTokenizer:
    """One or two tokens a word: each word's letters are joined from the left."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        letters = [*word[:-1], f"{word[-1]}</w>"]
        merges.update({("".join(letters[:at]), letters[at]): None for at in range(1, len(letters))})
    alphabet = sorted({letter + mark for word in WORDS for letter in word for mark in ("", "</w>")})
    pieces = dict.fromkeys([start, end, *alphabet, *("".join(pair) for pair in merges)])
    vocab = {piece: index for index, piece in enumerate(pieces)}
    joined: Any = list(merges)
    return CLIPTokenizer(vocab=vocab, merges=joined, model_max_length=CLIP_LENGTH)
