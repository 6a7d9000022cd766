"""A fast forward pass over the parameters of transformers' Qwen3VLMoeForConditionalGeneration, for training.

It computes what the modules compute (hf_evaluate.py --check compares the two), arranged for pictures of one
grid per batch: the tower's attention is one call over [pictures, heads, patches, width], the experts are two
dense products with the router's weights in between, and rotary tables are made once a grid. Several questions
about the same pictures share them: each token attends to the segment 0 before it (system text, pictures) and
to its own segment, at the positions it would have if it were the only question.
"""

import functools
import math

import torch
import torch.nn.functional as F

import model_config as mc

EPS = 1e-6


def merge_order(h, w):
    """Rows and columns of a grid's patches in 2x2 merge-block order."""
    rows = torch.arange(h).view(h // 2, 1, 2, 1).expand(h // 2, w // 2, 2, 2).reshape(-1)
    cols = torch.arange(w).view(1, w // 2, 1, 2).expand(h // 2, w // 2, 2, 2).reshape(-1)
    return rows, cols


@functools.lru_cache(maxsize=1024)
def grid_tables(h, w, side, head_dim, device):
    """For one grid: where to read the position table and with what weights, and the rotary cos and sin."""
    rows, cols = merge_order(h, w)

    def axis(n, at):
        s = torch.linspace(0, side - 1, n, dtype=torch.float32)[at]
        low = s.long()
        return low, (low + 1).clamp(max=side - 1), s - low
    f, g, dh = axis(h, rows)
    p, q, dw = axis(w, cols)
    index = torch.stack([f * side + p, f * side + q, g * side + p, g * side + q], 1)
    weight = torch.stack([(1 - dh) * (1 - dw), (1 - dh) * dw, dh * (1 - dw), dh * dw], 1)
    half = head_dim // 2
    inv = 1.0 / (10000.0 ** (torch.arange(0, half, 2, dtype=torch.float32) / half))
    angle = torch.cat([rows[:, None] * inv, cols[:, None] * inv], 1)
    angle = torch.cat([angle, angle], 1)
    return tuple(t.to(device) for t in (index, weight, angle.cos(), angle.sin()))


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return (x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin).to(x.dtype)


def rms_norm(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, EPS)


def layer_norm(x, norm):
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, EPS)


def patches(pixels, h, w, dtype, raster=False):
    """uint8 [N, frames, H, W, 3] to [N, h w, 3 frames 256], normalised, in merge-block order."""
    n, frames = pixels.shape[:2]
    x = ((pixels.to(torch.float32) - 127.5) / 127.5).to(dtype)
    if raster:
        x = x.view(n, frames, h, 16, w, 16, 3).permute(0, 2, 4, 6, 1, 3, 5)
    else:
        x = x.view(n, frames, h // 2, 2, 16, w // 2, 2, 16, 3).permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return x.reshape(n, h * w, 3 * frames * 256)


def tower_before(x, norm_w, norm_b, qkv_w, qkv_b, cos, sin, heads):
    """A block up to its attention: q, k and v [pictures, heads, patches, width]."""
    n, p, c = x.shape
    y = F.linear(F.layer_norm(x, (c,), norm_w, norm_b, EPS), qkv_w, qkv_b)
    q, k, v = y.view(n, p, 3, heads, c // heads).permute(2, 0, 3, 1, 4).unbind(0)
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def tower_after(x, a, proj_w, proj_b, norm_w, norm_b, up_w, up_b, down_w, down_b):
    """A block from its attention on."""
    n, p, c = x.shape
    x = x + F.linear(a.transpose(1, 2).reshape(n, p, c), proj_w, proj_b)
    y = F.linear(F.layer_norm(x, (c,), norm_w, norm_b, EPS), up_w, up_b)
    return x + F.linear(F.gelu(y, approximate="tanh"), down_w, down_b)


def merge(y, up_w, up_b, down_w, down_b):
    return F.linear(F.gelu(F.linear(y, up_w, up_b)), down_w, down_b)


def vision(visual, images, clips, h, w, raster=False):
    """The tower over images [N1, 1, H, W, 3] and pairs of frames [N2, 2, H, W, 3] of one grid.

    Returns the merged rows and those of each DeepStack level, [(N1 + N2) h w / 4, hidden] each, images first.
    """
    weight, bias = visual.patch_embed.proj.weight, visual.patch_embed.proj.bias
    c = weight.shape[0]
    parts = []
    if images is not None and images.shape[0]:
        # Both frames are the same picture: the kernel's two halves add up.
        both = weight.sum(2).reshape(c, -1)
        parts.append(F.linear(patches(images, h, w, weight.dtype, raster), both, bias))
    if clips is not None and clips.shape[0]:
        whole = weight.reshape(c, -1)
        parts.append(F.linear(patches(clips, h, w, weight.dtype, raster), whole, bias))
    x = torch.cat(parts)
    heads = mc.VISION["num_heads"]
    side = math.isqrt(mc.VISION["num_position_embeddings"])
    index, weights, cos, sin = grid_tables(h, w, side, c // heads, x.device)
    x = x + (F.embedding(index, visual.pos_embed.weight) * weights[:, :, None]).sum(1).to(x.dtype)
    levels = []

    def merged(merger, y):
        return STEPS["merge"](y, merger.linear_fc1.weight, merger.linear_fc1.bias, merger.linear_fc2.weight,
                              merger.linear_fc2.bias)
    for i, block in enumerate(visual.blocks):
        attn, mlp = block.attn, block.mlp
        q, k, v = STEPS["tower_before"](x, block.norm1.weight, block.norm1.bias, attn.qkv.weight,
                                        attn.qkv.bias, cos, sin, heads)
        a = F.scaled_dot_product_attention(q, k, v)
        x = STEPS["tower_after"](x, a, attn.proj.weight, attn.proj.bias, block.norm2.weight, block.norm2.bias,
                                 mlp.linear_fc1.weight, mlp.linear_fc1.bias, mlp.linear_fc2.weight,
                                 mlp.linear_fc2.bias)
        if i in mc.VISION["deepstack_visual_indexes"]:
            merger = visual.deepstack_merger_list[len(levels)]
            levels.append(merged(merger, layer_norm(x.reshape(-1, 4 * c), merger.norm)))
    return merged(visual.merger, layer_norm(x, visual.merger.norm).reshape(-1, 4 * c)), levels


@functools.lru_cache(maxsize=8)
def mrope_axes(device, chunked=False):
    """The axis (0 T, 1 H, 2 W) and the inverse frequency of each rotary pair."""
    section = mc.TEXT["rope_scaling"]["mrope_section"]
    half = mc.TEXT["head_dim"] // 2
    axis = torch.zeros(half, dtype=torch.long)
    if chunked:
        axis[section[0]:section[0] + section[1]] = 1
        axis[section[0] + section[1]:] = 2
    else:
        axis[1:3 * section[1]:3] = 1
        axis[2:3 * section[2]:3] = 2
    inv = 1.0 / (float(mc.TEXT["rope_theta"]) ** (torch.arange(half, dtype=torch.float32) / half))
    return axis.to(device), inv.to(device)


def mixture(x, gate, gate_up, down, k):
    """The MoE block with every expert evaluated; also the balancing loss of transformers' formula."""
    e, twice, h = gate_up.shape
    prob = torch.softmax(F.linear(x, gate), -1, dtype=torch.float32)
    value, chosen = prob.topk(k, -1)
    value = value / value.sum(-1, keepdim=True)
    weight = torch.zeros_like(prob).scatter(-1, chosen, value)
    y = F.linear(x, gate_up.reshape(e * twice, h)).view(*x.shape[:-1], e, 2, twice // 2)
    y = F.silu(y[..., 0, :]) * y[..., 1, :] * weight[..., None].to(x.dtype)
    share = (weight > 0).to(torch.float32).mean((0, 1))
    balance = e * (share.detach() * prob.mean((0, 1))).sum()
    return F.linear(y.flatten(-2), down.permute(1, 0, 2).reshape(h, -1)), balance


def text_before(x, norm, q_w, k_w, v_w, q_norm, k_norm, cos, sin, d):
    """A decoder layer up to its attention: q, k and v [B, heads, L, d], a KV head for each of its heads."""
    b, n, _ = x.shape
    y = rms_norm(x, norm)
    q, k, v = (F.linear(y, w).view(b, n, -1, d) for w in (q_w, k_w, v_w))
    q = rotate(rms_norm(q, q_norm).transpose(1, 2), cos, sin)
    k = rotate(rms_norm(k, k_norm).transpose(1, 2), cos, sin)
    v = v.transpose(1, 2)
    heads, groups = q.shape[1], k.shape[1]
    k, v = (t[:, :, None].expand(b, groups, heads // groups, n, d).reshape(b, heads, n, d) for t in (k, v))
    return q, k, v


def text_after(x, a, o_w, norm, gate, gate_up, down, k):
    """A decoder layer from its attention on; also its balancing loss."""
    b, n, _ = x.shape
    x = x + F.linear(a.transpose(1, 2).reshape(b, n, -1), o_w)
    y, balance = mixture(rms_norm(x, norm), gate, gate_up, down, k)
    return x + y, balance


# The steps between attention calls; compile_steps() replaces them by fused ones.
STEPS = {f.__name__: f for f in (tower_before, tower_after, merge, text_before, text_after)}


def compile_steps():
    """Fuses the steps for any batch shape; takes about a minute on their first use."""
    torch._dynamo.config.cache_size_limit = 64
    for name, step in STEPS.items():
        STEPS[name] = torch.compile(step, dynamic=True)


def text_states(language, ids, position, segment, visual_rows, merged, levels, chunked=False):
    """The final hidden states [B, L, hidden] and the sum over layers of the balancing loss.

    ids [B, L]; position [3, B, L]; segment [B, L]; visual_rows: for each merged row its index into B L.
    """
    b, n = ids.shape
    heads, d = mc.TEXT["num_attention_heads"], mc.TEXT["head_dim"]
    x = F.embedding(ids, language.embed_tokens.weight).view(b * n, -1)
    if merged is not None:
        x = x.index_copy(0, visual_rows, merged.to(x.dtype))
    x = x.view(b, n, -1)
    axis, inv = mrope_axes(x.device, chunked)
    angle = position.to(torch.float32)[axis].permute(1, 2, 0) * inv
    angle = torch.cat([angle, angle], -1)[:, None]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    order = torch.arange(n, device=x.device)
    allowed = (order[:, None] >= order[None, :]) & ((segment[:, None, :] == 0) |
                                                    (segment[:, None, :] == segment[:, :, None]))
    mask = torch.zeros(b, 1, n, n, device=x.device, dtype=x.dtype)
    mask = mask.masked_fill_(~allowed[:, None], float("-inf")).expand(b, heads, n, n)
    total = 0.0
    for i, layer in enumerate(language.layers):
        s, m = layer.self_attn, layer.mlp
        q, k, v = STEPS["text_before"](x, layer.input_layernorm.weight, s.q_proj.weight, s.k_proj.weight,
                                       s.v_proj.weight, s.q_norm.weight, s.k_norm.weight, cos, sin, d)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x, balance = STEPS["text_after"](x, a, s.o_proj.weight, layer.post_attention_layernorm.weight,
                                         m.gate.weight, m.experts.gate_up_proj, m.experts.down_proj,
                                         mc.TEXT["num_experts_per_tok"])
        total = total + balance
        if levels is not None and i < len(levels):
            x = x.view(b * n, -1).index_add(0, visual_rows, levels[i].to(x.dtype)).view(b, n, -1)
    return rms_norm(x, language.norm.weight), total


def forward(model, batch, chunked=False, raster=False, deepstack=True):
    """Hidden states of a batch (see batches.py) and the balancing loss."""
    visual, parts = model.model.visual, []
    if batch["images"] is not None or batch["clips"] is not None:
        parts.append(vision(visual, batch["images"], batch["clips"], batch["h"], batch["w"], raster))
    if batch["others"] is not None:
        parts.append(vision(visual, batch["others"], None, *batch["other_grid"], raster))
    merged = levels = None
    if parts:
        merged = torch.cat([m for m, _ in parts])
        levels = [torch.cat(level) for level in zip(*(some for _, some in parts))]
    return text_states(model.model.language_model, batch["ids"], batch["position"], batch["segment"],
                       batch["visual_rows"], merged, levels if deepstack else None, chunked)
