"""Records the ids of Python's tokenizers over the settings of tokenizer_config.json, for
tests/models/tokenizer_settings_test.cpp.

Run: python tests/record/record_tokenizers.py   (needs torch, transformers and safetensors)

Writes tests/data/tokenizers.safetensors. Its metadata hold the vocabulary and, for each case, the files of settings as JSON;
its tensors the texts, and for each case the ids of each text alone and of pairs of texts.
"""

import json
import pathlib
import random
import tempfile

import torch
from record_bert import TEXTS, strange_word
from safetensors.torch import save_file
from transformers import BertTokenizer, BertTokenizerFast

DATA = pathlib.Path(__file__).parents[1] / "data"
MAX_LENGTH = 24

MORE_TEXTS = [
    "<ent> and <ENT> or x<ent>y, <ent>", "the newtoken NewToken NEWTOKEN newtokens", "Éclair éclair ECLAIR e\u0301clair eclair",
    "abcd abc ab abcde bcd", "<s> text </s> <unk> <mask> <pad>", "word_word Word word", "  <ent>  spaced  ", "[SEP][SEP][CLS] [MASK]x",
    "中<ent>文 日本", "ΑΣ ΣΑΣ Σ", "İI ıi", "a\u302e\u302fb \U0001d165\U0001d16d", "ﬁ Å ẛ̣ ḍ̇ 각 가", "a\u0334\u0301\u0323\u0338b", "<<ent>> <ent><ent>", "ćd cD abćd",
    "hello \x00 world \ufffd and \u200b\u2028 \u00a0\u3000 \x85 x", "[UNK] ##ing [PAD]", "one two three four five six seven eight nine ten " * 3,
]


def vocabulary():
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789éÉèüÜåÅñçœσςΑΣασ中文日本語иПртвеİıiöä"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<unk>", "<pad>", "<mask>", "[unused1]"]
    tokens += list(dict.fromkeys(letters)) + list("!?.,;:'\"()[]{}<>/\\|`~@#$%^&*-_=+€“”‘’—…")
    tokens += ["##" + letter for letter in dict.fromkeys(letters)] + ["##\u0301", "##\u0307", "##\u0308", "\u0301"]
    tokens += ["hello", "Hello", "world", "World", "the", "The", "new", "##token", "##ing", "##able", "un", "text", "caf", "##fé", "##fe", "clair", "##lair",
               "中文", "##文", "日本", "tokens", "one", "two", "three", "four", "five", "ab", "abc", "bcd", "ent", "word", "Word"]
    return list(dict.fromkeys(tokens))


def token(content, **fields):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": False} | fields


def cases(vocabulary):
    """The files of settings by the name of the case."""
    config = lambda **fields: {"tokenizer_config.json": fields}
    end, ids = len(vocabulary), {name: n for n, name in enumerate(vocabulary)}
    special = {str(ids[name]): token(name, special=True) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}

    def added(*tokens):
        new = [entry["content"] for entry in tokens if entry["content"] not in ids]
        return config(added_tokens_decoder=special | {str(ids.get(entry["content"], end + (new + [entry["content"]]).index(entry["content"]))): entry for entry in tokens})

    names = {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    yield "no_file", {}
    yield "defaults", config(tokenizer_class="BertTokenizer", strip_accents=None, model_max_length=int(1e30), never_split=None)
    for lower in (False, True):
        for strip in (None, False, True):
            for chinese in (False, True):
                yield (f"lower_{lower}_strip_{strip}_chinese_{chinese}",
                       config(do_lower_case=lower, strip_accents=strip, tokenize_chinese_chars=chinese, tokenizer_class="BertTokenizerFast"))
    yield "names", config(**names)
    yield "names_of_objects", config(**{field: token(name) | {"__type": "AddedToken"} for field, name in names.items()})
    yield "normalized_name", config(mask_token=token("<MASK>" , normalized=True) | {"__type": "AddedToken"}, added_tokens_decoder=special)
    yield "left", config(truncation_side="left")
    yield "added", added(token("<ent>"), token("NewToken", normalized=True), token("Éclair", normalized=True), token("word", single_word=True))
    yield "added_cased", {"tokenizer_config.json": added(token("NewToken", normalized=True), token("Éclair"))["tokenizer_config.json"] | {"do_lower_case": False}}
    yield "overlapping", added(token("abc"), token("abcde"), token("bcd"), token("cd"), token("<<", normalized=True), token("ent>", normalized=True))
    yield "single_words", added(token("ent", single_word=True), token("tokens", single_word=True, normalized=True), token("中", single_word=True))
    yield "stripping", added(token("<ent>", lstrip=True, rstrip=True), token("spaced", lstrip=True, normalized=True))
    yield "in_vocabulary", config(added_tokens_decoder=special | {str(ids["[unused1]"]): token("[unused1]", special=True)})
    yield "additional", config(additional_special_tokens=["<ent>", "[unused1]"])
    yield "extra", config(extra_special_tokens=["<ent>", "two"])
    yield "extra_by_name", config(extra_special_tokens={"entity_token": "<ent>"})
    yield "first_and_last", config(bos_token="<s>", eos_token="</s>")
    yield "legacy", {"tokenizer_config.json": {"do_lower_case": True}, "special_tokens_map.json": names | {"extra_special_tokens": ["<ent>"]},
                     "added_tokens.json": {"<ent>": end, "NewToken": end + 1}}


def joined(texts):
    """The texts in UTF-8, separated by a byte that UTF-8 lacks."""
    return torch.frombuffer(bytearray(b"\xff".join(text.encode() for text in texts)), dtype=torch.uint8)


def pack(ids):
    return torch.tensor(sum(ids, []), dtype=torch.int16), torch.tensor([len(text_ids) for text_ids in ids], dtype=torch.int16)


if __name__ == "__main__":
    random.seed(0)
    texts = TEXTS + MORE_TEXTS + [" ".join(strange_word() for _ in range(8)) for _ in range(10)]
    tokens = vocabulary()
    tensors, metadata = {"texts": joined(texts)}, {"vocab.txt": "\n".join(tokens)}
    for name, files in cases(tokens):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
            for file, content in files.items():
                (pathlib.Path(folder) / file).write_text(json.dumps(content), encoding="utf-8")
                metadata[f"{name}/{file}"] = json.dumps(content)
            tokenizer = BertTokenizer.from_pretrained(folder)
        assert type(tokenizer) is BertTokenizerFast
        single = [tokenizer(text, truncation=True, max_length=MAX_LENGTH)["input_ids"] for text in texts]
        pairs = [tokenizer(text, texts[n - 1] or "x", truncation="longest_first", max_length=MAX_LENGTH - n % 2)["input_ids"] for n, text in enumerate(texts)]
        tensors[f"{name}/ids"], tensors[f"{name}/lengths"] = pack(single)
        tensors[f"{name}/pair_ids"], tensors[f"{name}/pair_lengths"] = pack(pairs)
        metadata[f"{name}/vocab_size"] = str(len(tokenizer))
    save_file(tensors, DATA / "tokenizers.safetensors", metadata=metadata)
    print(f"{len(metadata)} entries, {(DATA / 'tokenizers.safetensors').stat().st_size} bytes")
