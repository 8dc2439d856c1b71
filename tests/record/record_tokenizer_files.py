"""Writes tests/data/tokenizer_files: a small tokenizer of each family in its published layout, and what Python's
`tokenizers` makes of texts with each.

Run: python tests/record/record_tokenizer_files.py   (pip install tokenizers==0.22.1 sentencepiece protobuf)

python tests/record/record_tokenizer_files.py --compare PROGRAM [COUNT] compares the program `encode` of tests/text with
Python on COUNT texts, by default 10,000, and fails if any text differs.
"""
import collections
import json
import pathlib
import subprocess
import sys
import tempfile

import tokenizer_texts
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "data/tokenizer_files"
NUM_RECORDED = 100
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def corpus():
    """Texts of the 400 most frequent characters, so that the vocabularies are small."""
    texts = [text.decode(errors="replace") for text in tokenizer_texts.texts(3000, seed=1)]
    kept = {c for c, _ in collections.Counter("".join(texts)).most_common(400)}
    return ["".join(c for c in text if c in kept) for text in texts]


def trained(tokenizer, trainer):
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def byte_level(special, pre_tokenizer, **settings):
    tokenizer = Tokenizer(models.BPE(**settings))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    tokenizer = byte_level(["<|endoftext|>"], pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def roberta():
    tokenizer = byte_level(["<s>", "<pad>", "</s>", "<unk>"], pre_tokenizers.ByteLevel(add_prefix_space=True))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=True)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return tokenizer


def llama3():
    tokenizer = byte_level(["<|begin_of_text|>", "<|endoftext|>"], split_then_bytes(LLAMA3), ignore_merges=True)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", special_tokens=[("<|begin_of_text|>", 0)])])
    return tokenizer


def qwen():
    tokenizer = byte_level(["<|endoftext|>", "<|im_start|>"], split_then_bytes(QWEN))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def sentence_piece_bpe(**settings):
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True, **settings))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trained(tokenizer, trainers.BpeTrainer(vocab_size=900, special_tokens=special, limit_alphabet=200, show_progress=False))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    data["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tokenizer


def llama2():
    tokenizer = sentence_piece_bpe()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def mistral():
    tokenizer = sentence_piece_bpe()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def gemma():
    tokenizer = sentence_piece_bpe()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def unigram(special, normalizer):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, pre_tokenizers.Metaspace(), decoders.Metaspace()
    return trained(tokenizer, trainers.UnigramTrainer(vocab_size=800, special_tokens=special, unk_token="<unk>", show_progress=False))


def charsmap():
    """The table nmt_nfkc of SentencePiece, which would be 300 KB in the file, reduced to NFKC of a few characters."""
    import sentencepiece
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "rules.tsv").write_text("".join(f"{ord(a):X}\t{' '.join(f'{ord(c):X}' for c in b)}\n" for a, b in
                                        [("ﬁ", "fi"), ("ﬂ", "fl"), ("½", "1⁄2"), ("①", "1"), ("²", "2"), ("\u212b", "\u00c5"), ("\u2126", "\u03a9"), ("\u3000", " "), ("\t", " "), ("\n", " "), ("\u200b", " "),
                                         ("\u00ad", ""), ("\x07", ""), ("ｶ", "カ"), ("ﷺ", "صلى الله عليه وسلم")]))
        (path / "text.txt").write_text("\n".join(text.replace("\0", "") for text in corpus()[:500]))
        sentencepiece.SentencePieceTrainer.train(input=str(path / "text.txt"), model_prefix=str(path / "m"), vocab_size=2000, normalization_rule_tsv=str(path / "rules.tsv"), minloglevel=2, hard_vocab_limit=False)
        from sentencepiece import sentencepiece_model_pb2
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString((path / "m.model").read_bytes())
        return model.normalizer_spec.precompiled_charsmap


def t5():
    tokenizer = unigram(["<pad>", "</s>", "<unk>", "<extra_id_0>"], normalizers.Precompiled(charsmap()))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def xlm_roberta():
    tokenizer = unigram(["<s>", "<pad>", "</s>", "<unk>"], normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def word_piece(lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trained(tokenizer, trainers.WordPieceTrainer(vocab_size=800, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    tokenizer.add_tokens([AddedToken("NewToken", normalized=True), AddedToken("fox", single_word=True, normalized=True)])
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def word_level():
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(individual_digits=True)])
    return trained(tokenizer, trainers.WordLevelTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False))


FAMILIES = {"gpt2": gpt2, "roberta": roberta, "llama3": llama3, "qwen": qwen, "llama2": llama2, "mistral": mistral, "gemma": gemma, "t5": t5, "xlm_roberta": xlm_roberta,
            "bert_uncased": lambda: word_piece(True), "bert_cased": lambda: word_piece(False), "word_level": word_level}


def line_of(tokenizer, text):
    """Returns what the program `encode` prints for a text."""
    encoding = tokenizer.encode(text.decode(errors="replace"))
    numbers = lambda values: ",".join(map(str, values))
    decoded = [tokenizer.decode(encoding.ids, skip_special_tokens=skip) for skip in (True, False)]
    return ";".join([numbers(encoding.ids), numbers(sum(map(list, encoding.offsets), []))] + ["x" + text.encode().hex() for text in decoded])


def packed(texts):
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def compare(program, count):
    texts, failed = tokenizer_texts.texts(count, seed=2), 0
    with tempfile.NamedTemporaryFile() as file:
        file.write(packed(texts)), file.flush()
        for name in FAMILIES:
            path = FOLDER / f"{name}.json"
            tokenizer = Tokenizer.from_file(str(path))
            lines = subprocess.run([program, path, file.name], capture_output=True, check=True, text=True).stdout.splitlines()
            different = [n for n, text in enumerate(texts) if n >= len(lines) or lines[n] != line_of(tokenizer, text)]
            failed += len(different)
            print(f"{name}: {len(different)} of {count} texts differ")
            for n in different[:3]:
                print(f"  {texts[n]!r}\n  got      {lines[n]}\n  expected {line_of(tokenizer, texts[n])}")
    return failed


def record():
    FOLDER.mkdir(exist_ok=True)
    texts = tokenizer_texts.texts(NUM_RECORDED, seed=3)
    (FOLDER / "texts.bin").write_bytes(packed(texts))
    for name, make in FAMILIES.items():
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(json.loads(make().to_str()), ensure_ascii=False, separators=(",", ":")))
        tokenizer = Tokenizer.from_file(str(path))
        (FOLDER / f"{name}.txt").write_text("".join(line_of(tokenizer, text) + "\n" for text in texts))
        print(name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compare"]:
        sys.exit(1 if compare(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10_000) else 0)
    record()
