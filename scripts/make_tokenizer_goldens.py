#!/usr/bin/env python3
"""Writes tests/data/tokenizer_{bpe,spm}.json: tiny vocabularies, texts, and the ids that the
Hugging Face `tokenizers` and `sentencepiece` packages give for them.

    pip install tokenizers sentencepiece
    scripts/make_tokenizer_goldens.py tests/data

The vocabularies are trained on the texts below. Bytes in the JSON are ASCII with \\u escapes.
"""
import json
import pathlib
import sys
import tempfile

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\n\n \n\t\n  \r\n   x",
    "Hello, world! It's a fine day, isn't it? We'll see; I'd say they've won, I'm sure you're right.",
    "IT'S SHOUTING, WE'LL HEAR. 's 't 're 've 'm 'll 'd 'S 'T 'RE",
    "The quick brown fox jumps over the lazy dog. The lazy dog sleeps; the quick fox does not.",
    "camelCase HelloWorld HTTPServer snake_case kebab-case XMLHttpRequest iPhone",
    "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 2026-11-22 0x1F 1e-5 v1.2.3 x86_64",
    "int main(int argc, char** argv) {\n    for (int i = 0; i < 10; ++i) {\n\t\tprintf(\"%d\\n\", i);\n    }\n    return 0;\n}\n",
    "def f(x):\n    return x ** 2  # square\n\n\nprint(f(3))   \n",
    "Grüße aus Köln, façade, naïve, Ærøskøbing, Łódź, İstanbul, Ünïcödé e\u0301 o\u0308",
    "Привет, мир! Сегодня хорошая погода. Ёжик идёт домой.",
    "Καλημέρα κόσμε, τι κάνετε;",
    "你好，世界！今天天气很好。我们去公园散步吧。日本語のテキスト、カタカナとひらがな。",
    "안녕하세요 세계! 오늘 날씨가 좋네요.",
    "مرحبا بالعالم، ١٢٣ ٤٥٦",
    "नमस्ते दुनिया, यह एक परीक्षा है। १२३",
    "สวัสดีชาวโลก ทดสอบ",
    "שלום עולם",
    "emoji: 😀😃👩‍👩‍👧‍👦 🏳️‍🌈 ✅ ❤️ 🇩🇪 and text",
    "a\u00a0b\u2003c\u3000d\u0085e\u180ef\u200bg \u2028 \u202f.",
    "$100 + €50 = ¥? <tag attr=\"v\">`code`</tag> ~tilde~ ^caret^ |pipe| a/b\\c ½ ² Ⅷ",
    "....... !!! ??? ,,, --- ___ *** /// \\\\\\ \n... \n/// \r\n\r\n...",
    "          ten spaces, then\t\ttabs   ",
    "word  two   three    four     five",
    "\u0000\u0001\u0002 control \u007f bytes",
    "<|begin|>user\nHi there<|end|>\n<|begin|>assistant\n",
    "<|end|><|end|> <|end|>x<|begin|",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]
CONTROL = ["<|begin|>", "<|end|>"]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TAIL_SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
HEAD = r"[^\r\n\p{L}\p{N}]?"
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
             r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
RULES = {  # name: (patterns as published, ignore_merges)
    "default": ([r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], False),
    "smollm": ([r"\p{N}", GPT2], False),
    "gpt-2": ([GPT2], False),
    "llama-bpe": ([WORDS + r"\p{N}{1,3}" + TAIL], True),
    "qwen2": ([WORDS + r"\p{N}" + TAIL], False),
    "qwen35": ([SUFFIX + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+"], False),
    "falcon": ([r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], False),
    "deepseek-coder": ([r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"], False),
    "deepseek-v3": ([r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", DEEPSEEK3], False),
    "tekken": ([f"{HEAD}{UPPER}*{LOWER}+|{HEAD}{UPPER}+{LOWER}*|" + r"\p{N}" + TAIL_SLASH], True),
    "gpt-4o": ([f"{HEAD}{UPPER}*{LOWER}+{SUFFIX}?|{HEAD}{UPPER}+{LOWER}*{SUFFIX}?|"
                + r"\p{N}{1,3}" + TAIL_SLASH], False),
}


def bpe(name, patterns, ignore_merges):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if ignore_merges:  # some words that are tokens, but that merges would not make
        model = json.loads(tokenizer.to_str())
        for word in ("Ġjumps", "SHOUTING", "åħ¬åĽŃ"):
            model["model"]["vocab"].setdefault(word, len(model["model"]["vocab"]))
        tokenizer = Tokenizer.from_str(json.dumps(model))
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    plain = [tokenizer.encode(t).ids for t in TEXTS]
    tokenizer.add_special_tokens(CONTROL)
    special = [tokenizer.encode(t).ids for t in TEXTS]
    return {"pre": name, "tokens": tokens, "control": CONTROL, "merges": merges,
            "ids": plain, "ids_parse_special": special}


def spm():
    with tempfile.TemporaryDirectory() as folder:
        corpus, prefix = pathlib.Path(folder, "corpus.txt"), str(pathlib.Path(folder, "model"))
        # Latin texts alone: the other scripts are to fall back to bytes.
        latin = [t.replace("\n", " ").replace("\0", "") for t in TEXTS if t and max(t) < "\u0250"]
        corpus.write_text("\n".join(latin))
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=prefix, model_type="bpe", vocab_size=480,
            byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=True,
            remove_extra_whitespaces=False, character_coverage=1.0, minloglevel=2)
        model = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")
    n = model.get_piece_size()

    def kind(i):  # tokenizer.ggml.token_type
        return 2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
    texts = [t for t in TEXTS if "\0" not in t]
    return {"texts": texts, "tokens": [model.id_to_piece(i) for i in range(n)],
            "scores": [model.get_score(i) for i in range(n)], "types": [kind(i) for i in range(n)],
            "ids": [model.encode(t) for t in texts]}


def main():
    folder = pathlib.Path(sys.argv[1])
    vocabularies = [bpe(name, *rule) for name, rule in RULES.items()]
    for name, data in (("bpe", {"texts": TEXTS, "vocabularies": vocabularies}), ("spm", spm())):
        (folder / f"tokenizer_{name}.json").write_text(
            json.dumps(data, separators=(",", ":")).replace('],"', '],\n"') + "\n")


main()
