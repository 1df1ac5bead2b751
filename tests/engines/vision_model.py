"""Makes a small vision model with random weights (Idefics3 over Llama), for vLLM on a CPU.

In: a folder to make it in; it has the tokenizer of the model in the box. Out: an engine that serves it. Its answers
mean nothing; that it is given a picture, and finds it in its prefix cache again, is real. Of the vision models
that vLLM knows it is one that needs no torchvision. The engine's Python makes it, and downloads nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pg_bridge.serving.demo import find_model
from pg_bridge.serving.environment import find_vllm
from pg_bridge.serving.launch import VllmEngine
from tests.engines.started import QUIET

PICTURE_TOKENS = 64
NAME = "random-vision"

_RECIPE = """
import sys
import torch
from transformers import (
    AutoTokenizer, Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor, Idefics3Processor,
    LlamaConfig,
)
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig

source, folder, picture_tokens, template = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
words = AutoTokenizer.from_pretrained(source)
parts = [f"<row_{i}_col_{j}>" for i in range(1, 5) for j in range(1, 5)]
special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *parts]
words.add_special_tokens({"additional_special_tokens": special})
torch.manual_seed(0)
vision = Idefics3VisionConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=256, patch_size=16
)
text = LlamaConfig(
    vocab_size=len(words), hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=64, max_position_embeddings=4096, bos_token_id=0, eos_token_id=1, pad_token_id=1,
)
image_token = words.convert_tokens_to_ids("<image>")
model = Idefics3ForConditionalGeneration(
    Idefics3Config(vision_config=vision, text_config=text, image_token_id=image_token, scale_factor=2, pad_token_id=1)
)
with torch.no_grad():
    for weights in model.parameters():
        if weights.ndim > 1:  # large enough for an answer to depend on the whole prompt
            weights.normal_(0, 2.0 / weights.shape[-1] ** 0.5)
model.save_pretrained(folder)
size = {"longest_edge": 256}
pictures = Idefics3ImageProcessor(do_image_splitting=False, size=size, max_image_size=size)
processor = Idefics3Processor(image_processor=pictures, tokenizer=words, image_seq_len=picture_tokens)
processor.chat_template = template
processor.save_pretrained(folder)
"""

_TEMPLATE = """<|begin|>{% for message in messages %}<|{{ message['role'] }}|>
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""


def vision_engine(folder: Path, *, embeds: bool = False) -> VllmEngine:
    """An engine, not yet started, that serves such a model, which is made in a folder; it answers, or embeds."""
    python = Path(find_vllm()[0]).with_name("python")
    subprocess.run(
        [str(python), "-c", _RECIPE, str(find_model()), str(folder), str(PICTURE_TOKENS), _TEMPLATE],
        check=True,
        env=QUIET,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )
    extra = ["--dtype", "float32", *(["--runner", "pooling"] if embeds else [])]
    return VllmEngine(folder, served_name=NAME, device="cpu", kv_cache_gib=1, extra=extra)
