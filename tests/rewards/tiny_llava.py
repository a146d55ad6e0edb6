"""A vision-language model of a few thousand parameters whose weights are set by hand: it tells bright from dark.

A real LLaVA in transformers' own format, as `transformers serve` loads it. Nothing is trained. Every block of the
vision tower adds nothing; dimension 0 of a patch is the sign of its brightness. The projector puts it in dimension 0 of
the language model, whose one layer averages that dimension over all positions before. The word after <answer> is
then BRIGHT or DARK by its sign, and the word after either is the end.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SAID = 'Word-wise Scores: [["cat", {0}]]\n\nAlignment Score (1-5): {1}\nCoherence Score (1-5): 3\nFinal Score: {2}'
BRIGHT, DARK = SAID.format(0.1, 4.25, 4.5), SAID.format(0.9, 1.25, 1.5)
VOCABULARY = ["<pad>", "<s>", "</s>", "<image>", "<unk>", "<answer>", BRIGHT, DARK]
END, IMAGE, ANSWER = (VOCABULARY.index(token) for token in ("</s>", "<image>", "<answer>"))
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
    "{% elif c['type'] == 'text' %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}<answer>"
)
SIZE, PATCH, WIDTH = 28, 14, 16


def save_tiny_llava(directory: Path) -> None:
    """Write model and processor to `directory`."""
    model = LlavaForConditionalGeneration(_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        _see(model)
        _speak(model)
    model.generation_config.eos_token_id = END
    model.generation_config.pad_token_id = 0
    model.save_pretrained(directory)
    _processor().save_pretrained(directory)


def _config() -> LlavaConfig:
    shape = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 1}
    vision = CLIPVisionConfig(
        **shape, num_hidden_layers=2, image_size=SIZE, patch_size=PATCH, projection_dim=WIDTH
    )
    text = LlamaConfig(
        **shape,
        vocab_size=len(VOCABULARY),
        num_hidden_layers=1,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=0,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(SIZE // PATCH) ** 2,
    )


def _see(model: LlavaForConditionalGeneration) -> None:
    """Dimension 0 of what the projector gives for a patch: above 0 for a bright one, below for a dark one."""
    parts = dict(model.named_parameters())
    only(parts, "patch_embedding.weight")[0] = 1 / (3 * PATCH**2)
    only(parts, "position_embedding.weight")[:, 1::2] = 1  # the norm needs something to divide by
    only(parts, "pre_layrnorm.weight").fill_(1)
    first, second = only(parts, "linear_1.weight"), only(parts, "linear_2.weight")
    only(parts, "linear_1.bias")[:2] = torch.tensor([10.0, -10.0])  # for -1, what it makes of grey
    first[0, 0], first[1, 0] = 10, -10
    second[0, 0], second[0, 1] = 1, -1


def _speak(model: LlavaForConditionalGeneration) -> None:
    """Dimension 1: after <answer>. Dimension 2: after the word. Dimension 0: the mean over the picture."""
    parts = dict(model.named_parameters())
    for name, parameter in parts.items():
        if "language_model" in name and "norm" in name:
            parameter.fill_(1)
    only(parts, "v_proj.weight", "language_model")[0, 0] = 1
    only(parts, "o_proj.weight", "language_model")[0, 0] = 1
    words = only(parts, "embed_tokens.weight")
    words[ANSWER, 1] = words[-2:, 2] = 1
    head = only(parts, "lm_head.weight")
    head[-2:, 1] = 1
    head[-2, 0], head[-1, 0] = 10, -10
    head[END, 2] = 1000


def only(parameters: dict[str, Tensor], end: str, within: str = "") -> Tensor:
    """The one parameter whose name ends like this."""
    (found,) = (p for name, p in parameters.items() if name.endswith(end) and within in name)
    return found


def _processor() -> LlavaProcessor:
    words = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>", "<answer>"],
    )
    fast.chat_template = TEMPLATE
    size = {"height": SIZE, "width": SIZE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size),
        tokenizer=fast,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
        image_token="<image>",
    )
