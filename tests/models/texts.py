"""Real text encoders of tiny size and their tokenizers, made on the spot: the words are those of the demonstration."""

from __future__ import annotations

import json
from typing import Any

from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLModel,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from cl_steps.demo import vocabulary

WIDTH = 32
QWEN_TURNS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MISTRAL_TURNS = ("<pad>", "<s>", "</s>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
                 "[INST]", "[/INST]")  # fmt: skip
TEMPLATE = (
    "system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of "
    "the objects and background: user assistant think " + SYSTEM_MESSAGE
)
"""What pipelines write around a caption."""
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content if message.content is string else message.content[0].text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MISTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}[SYSTEM_PROMPT]{{ message.content[0].text }}[/SYSTEM_PROMPT]"
    "{% else %}[INST]{{ message.content[0].text }}[/INST]{% endif %}{% endfor %}"
)


def clip_tokenizer() -> CLIPTokenizer:
    """Sixteen tokens, one a word."""
    return vocabulary.build_tokenizer()


def clip_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """Two layers: pipelines take the last but one."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """As Stable Diffusion and Flux have it."""
    return CLIPTextModel(clip_config(tokenizer))


def clip_projected(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """As SDXL's second and both of SD3's."""
    return CLIPTextModelWithProjection(clip_config(tokenizer))


def t5_tokenizer() -> T5Tokenizer:
    """One token a word, else letters."""
    special = {"<pad>": 0.0, "</s>": 0.0, "<unk>": -20.0}
    letters = dict.fromkeys("▁abcdefghijklmnopqrstuvwxyz0123456789.,-'", -9.0)
    words = {f"▁{word}": -1.0 for word in vocabulary.words()}
    return T5Tokenizer(vocab=list((special | letters | words).items()), extra_ids=0, model_max_length=512)


def t5(tokenizer: T5Tokenizer, width: int = WIDTH) -> T5EncoderModel:
    """As SD3 and Flux have it."""
    return T5EncoderModel(T5Config(**_t5_sizes(tokenizer, width)))


def umt5(tokenizer: T5Tokenizer) -> UMT5EncoderModel:
    """As Wan has it."""
    return UMT5EncoderModel(UMT5Config(**_t5_sizes(tokenizer, WIDTH)))


def qwen_tokenizer() -> Qwen2Tokenizer:
    """One token a word of the captions and of what pipelines write around them, else bytes."""
    return Qwen2Tokenizer(
        **_byte_pairs(QWEN_TURNS),
        additional_special_tokens=list(QWEN_TURNS[1:]),
        chat_template=QWEN_CHAT,
        model_max_length=2048,
    )


def qwen25_vl(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """As Qwen-Image has it; its eyes are there and see nothing."""
    text = _decoder_sizes(tokenizer, layers=2) | {
        "rope_scaling": {"mrope_section": [2, 2, 4], "rope_type": "default", "type": "default"}
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def qwen3(tokenizer: Qwen2Tokenizer) -> Qwen3Model:
    """As Z-Image has it."""
    return Qwen3Model(Qwen3Config(**_decoder_sizes(tokenizer, layers=2)))


def qwen3_deep(tokenizer: Qwen2Tokenizer) -> Qwen3ForCausalLM:
    """As Flux.2 Klein has it, which reads layers 9, 18 and 27."""
    return Qwen3ForCausalLM(Qwen3Config(**_decoder_sizes(tokenizer, layers=28)))


def qwen3_vl_deep(tokenizer: Qwen2Tokenizer) -> Qwen3VLModel:
    """As Ideogram 4 has it, which reads 13 of 36 layers."""
    text = _decoder_sizes(tokenizer, layers=36)
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
    return Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision))


def smollm3(tokenizer: Qwen2Tokenizer) -> SmolLM3ForCausalLM:
    """As Bria's Fibo has it, which reads every layer."""
    sizes = _decoder_sizes(tokenizer, layers=3)
    sizes.pop("head_dim")
    return SmolLM3ForCausalLM(SmolLM3Config(**sizes))


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Of the processor that Flux.2 has; what reads images there needs torchvision."""
    pairs = _byte_pairs(MISTRAL_TURNS)
    model = Tokenizer(models.BPE(**pairs))
    model.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=list(MISTRAL_TURNS[3:]),
        model_max_length=2048,
        chat_template=MISTRAL_CHAT,
    )


def mistral_deep(tokenizer: PreTrainedTokenizerFast) -> Mistral3ForConditionalGeneration:
    """As Flux.2 has it, which reads layers 10, 20 and 30."""
    text = _decoder_sizes(tokenizer, layers=31) | {"model_type": "mistral", "sliding_window": None}
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 32,
        "patch_size": 16,
    }
    image = tokenizer.convert_tokens_to_ids("[IMG]")
    return Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=text, vision_config=vision, image_token_index=image)
    )


def _t5_sizes(tokenizer: T5Tokenizer, width: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "d_model": width,
        "d_kv": width // 4,
        "d_ff": 2 * width,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _decoder_sizes(tokenizer: PreTrainedTokenizerFast, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": WIDTH // 2,
        "max_position_embeddings": 2048,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }


def _byte_pairs(special: tuple[str, ...]) -> dict[str, Any]:
    """A vocabulary and its merges, learnt from the words until each of them is one token."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator([TEMPLATE] * 2 + [f"{word} {word}" for word in vocabulary.words()], trainer)
    learnt = json.loads(learner.to_str())["model"]
    return {"vocab": learnt["vocab"], "merges": [tuple(merge) for merge in learnt["merges"]]}
