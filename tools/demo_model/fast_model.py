"""A fast forward pass over the parameters of transformers' Qwen3VLMoeForConditionalGeneration, for training.

It computes what the modules compute (hf_evaluate.py --check compares the two), arranged for pictures of one grid
per batch: the tower's attention is one call over [pictures, heads, patches, width], the experts are two dense
products with the router's weights in between, and rotary tables are made once a grid. Several questions about
the same pictures share them: each token attends to the segment 0 before it (system text, pictures) and to its
own segment, at the positions it would have if it were the only question.
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


def vision(visual, images, clips, h, w, raster=False):
    """The tower over images [N1, 1, H, W, 3] and pairs of frames [N2, 2, H, W, 3] of one grid.

    Returns the merged rows and those of each DeepStack level, [(N1 + N2) h w / 4, hidden] each, images first.
    """
    weight, bias = visual.patch_embed.proj.weight, visual.patch_embed.proj.bias
    c = weight.shape[0]
    parts = []
    if images is not None and images.shape[0]:
        # Both frames are the same picture: the kernel's two halves add up.
        parts.append(F.linear(patches(images, h, w, weight.dtype, raster), weight.sum(2).reshape(c, -1), bias))
    if clips is not None and clips.shape[0]:
        parts.append(F.linear(patches(clips, h, w, weight.dtype, raster), weight.reshape(c, -1), bias))
    x = torch.cat(parts)
    n, p, _ = x.shape
    heads = mc.VISION["num_heads"]
    side = math.isqrt(mc.VISION["num_position_embeddings"])
    index, weights, cos, sin = grid_tables(h, w, side, c // heads, x.device)
    x = x + (F.embedding(index, visual.pos_embed.weight) * weights[:, :, None]).sum(1).to(x.dtype)
    cos, sin = cos[None, None], sin[None, None]
    levels = []
    for i, block in enumerate(visual.blocks):
        qkv = block.attn.qkv(layer_norm(x, block.norm1)).view(n, p, 3, heads, -1).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(rotate(qkv[0], cos, sin), rotate(qkv[1], cos, sin), qkv[2])
        x = x + block.attn.proj(a.transpose(1, 2).reshape(n, p, c))
        y = block.mlp.linear_fc1(layer_norm(x, block.norm2))
        x = x + block.mlp.linear_fc2(F.gelu(y, approximate="tanh"))
        if i in mc.VISION["deepstack_visual_indexes"]:
            merger = visual.deepstack_merger_list[len(levels)]
            y = layer_norm(x.reshape(-1, 4 * c), merger.norm)
            levels.append(merger.linear_fc2(F.gelu(merger.linear_fc1(y))))
    merger = visual.merger
    y = layer_norm(x, merger.norm).reshape(-1, 4 * c)
    return merger.linear_fc2(F.gelu(merger.linear_fc1(y))), levels


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


def mixture(block, x):
    """The MoE block with every expert evaluated; also the balancing loss of transformers' formula."""
    experts, k = block.experts, mc.TEXT["num_experts_per_tok"]
    e, twice, h = experts.gate_up_proj.shape
    logits = F.linear(x, block.gate.weight)
    prob = torch.softmax(logits, -1, dtype=torch.float32)
    value, chosen = prob.topk(k, -1)
    value = value / value.sum(-1, keepdim=True)
    weight = torch.zeros_like(prob).scatter(-1, chosen, value)
    y = F.linear(x, experts.gate_up_proj.reshape(e * twice, h)).view(*x.shape[:-1], e, 2, twice // 2)
    y = F.silu(y[..., 0, :]) * y[..., 1, :] * weight[..., None].to(x.dtype)
    down = experts.down_proj.permute(1, 0, 2).reshape(h, -1)
    share = (weight > 0).to(torch.float32).mean(tuple(range(weight.dim() - 1)))
    balance = e * (share.detach() * prob.mean(tuple(range(prob.dim() - 1)))).sum()
    return F.linear(y.reshape(*x.shape[:-1], -1), down), balance


def text_states(language, ids, position, segment, visual_rows, merged, levels, chunked=False):
    """The final hidden states [B, L, hidden] and the sum over layers of the balancing loss.

    ids [B, L]; position [3, B, L]; segment [B, L]; visual_rows: for each merged row its index into B L.
    """
    b, n = ids.shape
    heads, groups, d = (mc.TEXT[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim"))
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
    mask = torch.zeros(b, 1, n, n, device=x.device, dtype=x.dtype).masked_fill_(~allowed[:, None], float("-inf"))
    total = 0.0
    for i, layer in enumerate(language.layers):
        a = layer.self_attn
        y = rms_norm(x, layer.input_layernorm.weight)
        q = rotate(rms_norm(a.q_proj(y).view(b, n, heads, d), a.q_norm.weight).transpose(1, 2), cos, sin)
        k = rotate(rms_norm(a.k_proj(y).view(b, n, groups, d), a.k_norm.weight).transpose(1, 2), cos, sin)
        v = a.v_proj(y).view(b, n, groups, d).transpose(1, 2)
        k, v = (t[:, :, None].expand(b, groups, heads // groups, n, d).reshape(b, heads, n, d) for t in (k, v))
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + a.o_proj(o.transpose(1, 2).reshape(b, n, heads * d))
        y, balance = mixture(layer.mlp, rms_norm(x, layer.post_attention_layernorm.weight))
        x = x + y
        total = total + balance
        if levels is not None and i < len(levels):
            x = x.view(b * n, -1).index_add(0, visual_rows, levels[i].to(x.dtype)).view(b, n, -1)
    return rms_norm(x, language.norm.weight), total


def forward(model, batch, chunked=False, raster=False, deepstack=True):
    """Hidden states of a batch (see batches.py) and the balancing loss."""
    merged = levels = None
    if batch["images"] is not None or batch["clips"] is not None:
        merged, levels = vision(model.model.visual, batch["images"], batch["clips"], batch["h"], batch["w"], raster)
    return text_states(model.model.language_model, batch["ids"], batch["position"], batch["segment"],
                       batch["visual_rows"], merged, levels if deepstack else None, chunked)
