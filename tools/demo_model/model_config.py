"""The demo model's architecture and the small files of its checkpoint.

Every number of the model stands here; train.py, export.py and hf_evaluate.py read them. The files are written
as published Qwen3-VL-MoE checkpoints spell them (num_experts, rope_scaling, the Fast image processor).

The sizes: every width that a decoder GEMM contracts over is a multiple of 128, so FP8 blocks of 128 and 4-bit
groups of 32, 64 and 128 fit; four heads and four experts divide among 2 and 4 ranks. No expert matrix is
square: loaders tell the published layout [E, in, out] from its transpose by the shape alone.
"""

import json
from pathlib import Path

VOCAB = 2048

# Qwen's spellings, in Qwen's order. They take the last ids of the vocabulary.
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
            "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
            "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
# Added, but kept when special tokens are skipped.
ADDED = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
         "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
BASE_VOCAB = VOCAB - len(SPECIALS) - len(ADDED)
ID = {text: BASE_VOCAB + i for i, text in enumerate(SPECIALS + ADDED)}

PATCH = 16
MERGE = 2
FACTOR = PATCH * MERGE

# Bounds in pixels: any picture is resized into the range that was trained.
IMAGE_PIXELS = (128 * 128, 512 * 512)
# Of a whole clip: 4 frames of 128x128 up to 8 of 320x320.
VIDEO_PIXELS = (4 * 128 * 128, 8 * 320 * 320)

TEXT = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": ID["<|endoftext|>"],
    "decoder_sparse_step": 1,
    "dtype": "bfloat16",
    "eos_token_id": ID["<|im_end|>"],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 384,
    "initializer_range": 0.02,
    "intermediate_size": 768,
    "max_position_embeddings": 4096,
    "mlp_only_layers": [],
    "model_type": "qwen3_vl_moe_text",
    "moe_intermediate_size": 128,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [12, 10, 10], "rope_type": "default"},
    "rope_theta": 5000000,
    "use_cache": True,
    "vocab_size": VOCAB,
}

VISION = {
    "deepstack_visual_indexes": [1, 2, 4],
    "depth": 6,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 160,
    "in_channels": 3,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "model_type": "qwen3_vl_moe",
    "num_heads": 5,
    "num_position_embeddings": 256,
    "out_hidden_size": TEXT["hidden_size"],
    "patch_size": PATCH,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": 2,
}

CONFIG = {
    "architectures": ["Qwen3VLMoeForConditionalGeneration"],
    "image_token_id": ID["<|image_pad|>"],
    "model_type": "qwen3_vl_moe",
    "text_config": TEXT,
    "tie_word_embeddings": False,
    "transformers_version": "4.57.0.dev0",
    "video_token_id": ID["<|video_pad|>"],
    "vision_config": VISION,
    "vision_end_token_id": ID["<|vision_end|>"],
    "vision_start_token_id": ID["<|vision_start|>"],
}

GENERATION = {
    "bos_token_id": ID["<|endoftext|>"],
    "do_sample": False,
    "eos_token_id": [ID["<|im_end|>"], ID["<|endoftext|>"]],
    "pad_token_id": ID["<|endoftext|>"],
    "repetition_penalty": 1.0,
    "transformers_version": "4.57.0.dev0",
}

_PROCESSOR = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "merge_size": MERGE,
    "patch_size": PATCH,
    "temporal_patch_size": 2,
}
IMAGE_PROCESSOR = dict(
    _PROCESSOR,
    size={"shortest_edge": IMAGE_PIXELS[0], "longest_edge": IMAGE_PIXELS[1]},
    processor_class="Qwen3VLProcessor",
    image_processor_type="Qwen2VLImageProcessorFast",
)
VIDEO_PROCESSOR = dict(
    _PROCESSOR,
    size={"shortest_edge": VIDEO_PIXELS[0], "longest_edge": VIDEO_PIXELS[1]},
    fps=2,
    min_frames=4,
    max_frames=8,
    cap_pixels_per_frame=False,
    processor_class="Qwen3VLProcessor",
    video_processor_type="Qwen3VLVideoProcessor",
)

# The words around tools are Qwen's, because clients and parsers rely on them.
CHAT_TEMPLATE = r"""{%- set seen = namespace(images=0, videos=0) -%}
{%- macro body(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
{%- set seen.images = seen.images + 1 -%}
{%- if add_vision_id -%}{{ 'Picture ' ~ seen.images ~ ': ' }}{%- endif -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'video' or 'video' in part -%}
{%- set seen.videos = seen.videos + 1 -%}
{%- if add_vision_id -%}{{ 'Video ' ~ seen.videos ~ ': ' }}{%- endif -%}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif 'text' in part -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set system = messages and messages[0].role == 'system' -%}
{%- if tools or system -%}
{{ '<|im_start|>system\n' }}
{%- if system -%}{{ body(messages[0].content) }}{%- endif -%}
{%- if tools -%}
{%- if system -%}{{ '\n\n' }}{%- endif -%}
{{ '# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>' }}
{%- for tool in tools -%}{{ '\n' ~ (tool | tojson) }}{%- endfor -%}
{{ '\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>' }}
{%- endif -%}
{{ '<|im_end|>\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{ '<|im_start|>user\n' ~ body(message.content) ~ '<|im_end|>\n' }}
{%- elif message.role == 'assistant' -%}
{%- set said = body(message.content) if message.content else '' -%}
{{ '<|im_start|>assistant\n' ~ said }}
{%- for call in (message.tool_calls or []) -%}
{%- if said or not loop.first -%}{{ '\n' }}{%- endif -%}
{%- set function = call.function if call.function else call -%}
{{ '<tool_call>\n{"name": "' ~ function.name ~ '", "arguments": ' ~ (function.arguments if function.arguments is string else function.arguments | tojson) ~ '}\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\n' }}
{%- elif message.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{ '<|im_start|>user' }}{%- endif -%}
{{ '\n<tool_response>\n' ~ body(message.content) ~ '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{ '<|im_end|>\n' }}{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""


def smart_resize(height, width, low=IMAGE_PIXELS[0], high=IMAGE_PIXELS[1], factor=FACTOR):
    """The size that the image processor resizes a picture to."""
    import math
    h, w = round(height / factor) * factor, round(width / factor) * factor
    if h * w > high:
        beta = math.sqrt(height * width / high)
        h = max(factor, math.floor(height / beta / factor) * factor)
        w = max(factor, math.floor(width / beta / factor) * factor)
    elif h * w < low:
        beta = math.sqrt(low / (height * width))
        h = math.ceil(height * beta / factor) * factor
        w = math.ceil(width * beta / factor) * factor
    return h, w


def parameters():
    """The number of weights, from the dimensions."""
    t, v = TEXT, VISION
    h, c, i, out = t["hidden_size"], v["hidden_size"], v["intermediate_size"], v["out_hidden_size"]
    q, kv = t["num_attention_heads"] * t["head_dim"], t["num_key_value_heads"] * t["head_dim"]
    layer = (2 * h + h * q + 2 * h * kv + q * h + 2 * t["head_dim"] + t["num_experts"] * h +
             t["num_experts"] * 3 * h * t["moe_intermediate_size"])
    text = 2 * t["vocab_size"] * h + h + t["num_hidden_layers"] * layer
    block = 4 * c + 3 * c * c + 3 * c + c * c + c + 2 * c * i + i + c
    merger = 4 * c * 4 * c + 4 * c + 4 * c * out + out
    levels = len(v["deepstack_visual_indexes"])
    vision = (c * 3 * 2 * PATCH * PATCH + c + v["num_position_embeddings"] * c + v["depth"] * block +
              (levels + 1) * merger + 2 * c + levels * 8 * c)
    return text + vision


def write_small_files(folder):
    """Writes every file of the checkpoint that is neither weights nor tokenizer."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (("config.json", CONFIG), ("generation_config.json", GENERATION),
                        ("preprocessor_config.json", IMAGE_PROCESSOR),
                        ("video_preprocessor_config.json", VIDEO_PROCESSOR)):
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


if __name__ == "__main__":
    print(f"{parameters()} weights, {parameters() * 2 / 1e6:.2f} MB in bf16")
