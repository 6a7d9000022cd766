#!/usr/bin/env python3
"""Trains the demo model's byte-level BPE tokenizer on its tasks' questions and answers and writes its files.

    make_tokenizer.py --out DIR [--examples 12000]

Qwen's pre-tokenizer, NFC and special tokens; 2048 ids. Printed text that is to be read is left out of the
corpus: it would spend merges on random letters. Needs the tokenizers package.
"""

import argparse
import json
from pathlib import Path

import model_config as mc

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")

# Beside the tasks: words that people use around them, so that other questions do not fall apart into bytes.
MORE = """
You are a helpful assistant. You are a careful observer of pictures. You look at pictures and answer
questions about
them. Answer in one short sentence. Be precise. Answer briefly. You are Prism, a small vision model.
What do you see? What is this? Who are you? Can you help me? Please tell me about this image. Thank you very
much.
Which one is bigger? Which is smaller? Where is it? How many are there? Is there anything else in the photo?
Why?
user assistant system tool function name arguments seconds vision picture image photo video frame clip
the of and to in is you that it he was for on are as with his they at be this have from or had by not but
what
all were we when your can said there use an each which she do how their if will up other about out many then
them
these so some her would make like him into time has look two more write go see number no way could people my
than
first water been call who oil its now find long down day did get come made may part one three four five six
seven
eight nine ten zero eleven twelve red orange yellow green blue purple pink black white gray grey brown
circle square triangle rectangle star diamond cross ring heart shape shapes colour color colours colors
left right above below top bottom center middle corner between largest smallest biggest tallest shortest
bar bars chart value trend rising falling text letters digits read word says written compare difference
changed
moves moving direction describe json bbox_2d label count total answer yes no hello hi thanks goodbye welcome
你好 谢谢 再见 请问 图片 图中 图里 照片 视频 这是什么 你看到了什么 有多少 几个 哪里 位置 左边 右边 上面 下面 左上角 右下角
颜色 形状 大小 最大 最小 数字 文字 字母 读出 写着 柱状图 最高 最低 趋势 上升 下降 比较 不同 变化 移动 方向 描述 回答 是的 不是
红色 橙色 黄色 绿色 蓝色 紫色 粉色 黑色 白色 灰色 圆形 正方形 三角形 长方形 星形 菱形 十字形 圆环 心形 一个 两个 三个 四个 五个
你是一个乐于助人的助手。请简短回答。你是一个会看图的助手。请认真看图并回答问题。我没有看到图片。请发送一张图片。你能做什么？
"""


def corpus(examples):
    import tasks
    from pictures import stream
    lines = []
    rng = stream("tokenizer", 0)
    for i in range(examples):
        example = tasks.sample(rng, (128, 128))
        for turn in example.turns:
            lines.append(turn.question)
            if turn.task != "text":
                lines.append(turn.answer)
    return lines


def train(lines):
    from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                            processors, trainers)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=mc.BASE_VOCAB, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    short = mc.BASE_VOCAB - tokenizer.get_vocab_size()
    if short:
        raise SystemExit(f"the corpus yields {short} ids too few")
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in mc.SPECIALS])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in mc.ADDED])
    for text, i in mc.ID.items():
        assert tokenizer.token_to_id(text) == i, text
    return tokenizer


def write(tokenizer, folder):
    """The tokenizer's files, spelled as in published checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                                          "single_word": False, "special": t in mc.SPECIALS}
                                 for t, i in mc.ID.items()},
        "additional_special_tokens": mc.SPECIALS[1:],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": mc.TEXT["max_position_embeddings"],
        "pad_token": "<|endoftext|>",
        "processor_class": "Qwen3VLProcessor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=12000)
    args = parser.parse_args()
    lines = corpus(args.examples)
    # The hand-written words weigh like a few hundred questions.
    lines += MORE.split("\n") * 200
    tokenizer = train(lines)
    write(tokenizer, args.out)
    ids = [len(tokenizer.encode(t).ids) for t in lines[:20000]]
    print(f"{tokenizer.get_vocab_size()} ids; {len(lines)} lines, {sum(ids) / len(ids):.1f} tokens each")


if __name__ == "__main__":
    main()
