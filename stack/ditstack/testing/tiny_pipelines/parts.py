"""Tokenizers, text encoders, image and video coders of a few thousand weights each, and their seeding."""
# diffusers loads its names lazily, and annotates more narrowly than it accepts.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

TEXT_WIDTH = 32  # of every text encoder but SD3's T5, which is as wide as its two CLIPs together
TEXT_LENGTH = 64  # tokens: one per character, so that prompts of up to 63 characters differ
LATENTS = 4  # channels of every latent picture

P = ParamSpec("P")
Pipeline = TypeVar("Pipeline", bound=DiffusionPipeline)


def tiny(build: Callable[P, Pipeline]) -> Callable[P, Pipeline]:
    """Seed a builder (two calls give equal weights, the caller's random state stays), rouse its models."""

    @wraps(build)
    def seeded(*args: P.args, **kwargs: P.kwargs) -> Pipeline:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipe = build(*args, **kwargs)
            for part in pipe.components.values():
                if isinstance(part, nn.Module):
                    rouse(part.eval())
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return seeded


@torch.no_grad()
def rouse(model: nn.Module) -> None:
    """Draw every matrix, bias and zeroed parameter anew, so that no gate or projection is shut."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(0, weight[0].numel() ** -0.5)
        elif name.endswith("bias") or not weight.any():
            weight.normal_(0, 0.1)


def flow(**more: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**more)


def flow_multistep() -> UniPCMultistepScheduler:
    """Second order, with a memory of its own: an error of one step is felt in the next ones."""
    return UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=1.0)


# Text: one token per character ------------------------------------------------------------------------

LETTERS = sorted(ByteLevel.alphabet())
SENTENCEPIECES = ["<pad>", "</s>", "<bos>", "<unk>", "▁", *map(chr, range(33, 127))]


def t5_tokenizer() -> T5Tokenizer:
    vocab = [(piece, 0.0 if piece.startswith("<") and len(piece) > 1 else -3.0) for piece in SENTENCEPIECES]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=TEXT_LENGTH)


def _t5_sizes(width: int) -> dict[str, Any]:
    heads = {"d_kv": 16, "num_heads": 2}
    return {"vocab_size": len(SENTENCEPIECES), "d_model": width, "d_ff": 64, "num_layers": 2, **heads}


def t5(width: int = TEXT_WIDTH, **more: Any) -> T5EncoderModel:
    return T5EncoderModel(T5Config(**{**_t5_sizes(width), **more}))


def umt5() -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(**_t5_sizes(TEXT_WIDTH)))


def clip_tokenizer() -> CLIPTokenizer:
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(letter + "</w>" for letter in LETTERS)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def _clip_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=2 + 2 * len(LETTERS), hidden_size=TEXT_WIDTH, intermediate_size=64,
        projection_dim=TEXT_WIDTH, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip


def clip() -> CLIPTextModel:
    return CLIPTextModel(_clip_config())


def clip_projected() -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(_clip_config())


def _llama_sizes(vocab_size: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size, "hidden_size": TEXT_WIDTH, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
    }  # fmt: skip


def gemma_tokenizer() -> GemmaTokenizer:
    """Begins with <bos>, so that an empty prompt is not wholly masked (Hunyuan answers that with NaN)."""
    vocab = {piece: i for i, piece in enumerate(SENTENCEPIECES)}
    return GemmaTokenizer(vocab=vocab, merges=[], add_bos_token=True)


def gemma() -> Gemma2Model:
    return Gemma2Model(Gemma2Config(**_llama_sizes(len(SENTENCEPIECES))))


def llama_tokenizer() -> PreTrainedTokenizerFast:
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=gemma_tokenizer().backend_tokenizer, **names)


def llama() -> LlamaModel:
    return LlamaModel(LlamaConfig(**_llama_sizes(len(SENTENCEPIECES)), pad_token_id=0))


def qwen_tokenizer(template: str) -> Qwen2Tokenizer:
    """Know the template's words, as the real one does: the pipeline cuts off their first 34 tokens."""
    words = re.findall(r"<\|\w+\|>|\s?\w+|[^\w<]", template.replace("{}", ""))
    vocab = ["<|endoftext|>", *LETTERS]
    tokenizer = Qwen2Tokenizer(vocab={word: i for i, word in enumerate(vocab)}, merges=[])
    tokenizer.add_tokens(sorted(set(words)))
    return tokenizer


def qwen() -> Qwen2_5_VLForConditionalGeneration:
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    text = {**_llama_sizes(400), "rope_parameters": rope, "bos_token_id": 0, "eos_token_id": 0}
    vision["out_hidden_size"] = TEXT_WIDTH
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def qwen3_tokenizer() -> Qwen2Tokenizer:
    """Without a system prompt: the chat is its last message."""
    tokenizer = qwen_tokenizer("")
    tokenizer.chat_template = "{{ messages[-1]['content'] }}\n"
    return tokenizer


def qwen3() -> Qwen3Model:
    return Qwen3Model(Qwen3Config(**_llama_sizes(400)))


# Pictures and videos --------------------------------------------------------------------------------


def kl(levels: int = 2, latents: int = LATENTS) -> AutoencoderKL:
    """A picture coder that makes each side 2 ** (levels - 1) times smaller."""
    return AutoencoderKL(
        block_out_channels=(8,) * levels, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, latent_channels=latents, norm_num_groups=4,
        scaling_factor=0.5, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


def kl_dc() -> AutoencoderDC:
    kinds, widths, layers = ("ResBlock", "ResBlock", "EfficientViTBlock"), (8, 8, 8), (1, 1, 1)
    return AutoencoderDC(
        latent_channels=LATENTS, attention_head_dim=4, encoder_block_types=kinds, decoder_block_types=kinds,
        encoder_block_out_channels=widths, decoder_block_out_channels=widths, encoder_layers_per_block=layers,
        decoder_layers_per_block=layers, encoder_qkv_multiscales=((), (), (5,)),
        decoder_qkv_multiscales=((), (), (5,)), scaling_factor=0.4,
    )  # fmt: skip


def _wan_sizes() -> dict[str, Any]:
    return {
        "base_dim": 8, "z_dim": LATENTS, "dim_mult": [1, 1, 1], "num_res_blocks": 1,
        "temperal_downsample": [False, True], "latents_mean": [0.0] * LATENTS, "latents_std": [1.0] * LATENTS,
    }  # fmt: skip


def kl_wan() -> AutoencoderKLWan:
    return AutoencoderKLWan(**_wan_sizes(), scale_factor_spatial=4, scale_factor_temporal=2)


def kl_qwen() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(**_wan_sizes())


def kl_hunyuan() -> AutoencoderKLHunyuanVideo:
    return AutoencoderKLHunyuanVideo(
        latent_channels=LATENTS, block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 3, up_block_types=("HunyuanVideoUpBlock3D",) * 3,
        spatial_compression_ratio=4, temporal_compression_ratio=4,
    )  # fmt: skip


def kl_ltx() -> AutoencoderKLLTXVideo:
    widths, layers, scaling = (8,) * 4, (1,) * 5, (True, True, True, False)
    return AutoencoderKLLTXVideo(
        latent_channels=LATENTS, block_out_channels=widths, decoder_block_out_channels=widths,
        layers_per_block=layers, decoder_layers_per_block=layers, spatio_temporal_scaling=scaling,
        decoder_spatio_temporal_scaling=scaling, patch_size=1,
    )  # fmt: skip


def kl_cogvideo() -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(
        latent_channels=LATENTS, block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=2,
        down_block_types=("CogVideoXDownBlock3D",) * 3, up_block_types=("CogVideoXUpBlock3D",) * 3,
    )  # fmt: skip
