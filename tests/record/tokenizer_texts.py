"""Texts for tests of tokenizers, the same in every run: scripts, emoji, combining marks, code, bytes that are not UTF-8."""
import random

WORDS = ("the quick brown fox jumps over lazy dog and isn't it's we're they'll I'M DON'T hello world tokenizer attention "
         "Straße naïve café Zürich Ærøskøbing İstanbul ﬁne ﬂow ½ ① ² Ⅷ привет мир здравствуйте Ελλάδα σίγμας עברית שלום "
         "العربية مرحبا हिन्दी नमस्ते বাংলা தமிழ் ไทยสวัสดี 日本語 こんにちは カタカナ ｶﾀｶﾅ 中文字符 你好世界 한국어 안녕하세요 ქართული "
         "አማርኛ 𝔾𝕠𝕠𝕕 𝓂𝒶𝓉𝒽 e\u0301 a\u0323\u0306 \u1e69\u0301 \u1112\u1161\u11ab o\u0308\u0304 ậ Å Ω ﷺ").split()
EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🇩🇪🇫🇷", "❤️", "🏳️‍🌈", "1️⃣", "🧑🏿‍🚀", "☃", "✨"]
MARKS = [chr(c) for c in (0x300, 0x301, 0x308, 0x323, 0x327, 0x345, 0x5B0, 0x64B, 0x93C, 0x94D, 0xE31, 0x302E, 0x20D0, 0xFE0F, 0x200D)]
SPACES = [" ", "  ", "   ", "\n", "\r\n", "\t", "\n\n", " \n ", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\u0085", "\x0b", "\ufeff"]
CONTROLS = [chr(c) for c in (0, 1, 7, 8, 0x1B, 0x7F, 0x8F, 0x9F, 0xAD, 0x200E, 0x202E, 0xE000, 0xFFFD)]
CODE = ["for (int i = 0; i < n; ++i) {", "    return x[i] -= 3.14e-10;", "def f(a, *b):\n\tpass", "<div class=\"a\">&amp;</div>", "https://x.org/a?b=c#d",
        "a_b-c.d/e\\f", "12345678901", "3,141.59", "#!$%^&*()", "'''", "...", "\"quoted\"", "['s]", "x's", "'S 'RE 'll"]
SPECIAL = ["<s>", "</s>", "<unk>", "<pad>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "<mask>", " <mask>  ", "<|endoftext|>", "<|im_start|>", "<extra_id_0>", "NewToken", "newtoken", "▁", "▁▁", "<0x41>", "Ġ", "##s"]
INVALID = [b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\x80", b"\xf5\x80\x80\x80"]
RANGES = [(0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x64A), (0x905, 0x939), (0xE01, 0xE2E), (0x1E00, 0x1EFF),
          (0x2010, 0x2027), (0x2190, 0x21FF), (0x3041, 0x3096), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xF900, 0xFA2D), (0xFF01, 0xFF5E), (0x1F600, 0x1F64F)]


def piece(rng):
    """Returns one part of a text, as bytes."""
    kind = rng.randrange(20)
    if kind == 0:
        return rng.choice(INVALID)
    pick = {1: EMOJI, 2: MARKS, 3: CONTROLS, 4: CODE, 5: SPECIAL, 6: SPACES}.get(kind)
    if pick:
        text = rng.choice(pick)
    elif kind == 7:
        first, last = rng.choice(RANGES)
        text = "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 8)))
    elif kind == 8:
        text = rng.choice("aAéж中1.!") * rng.randint(1, 60)
    elif kind == 9:
        text = rng.choice(WORDS).upper() + rng.choice(MARKS)
    else:
        text = rng.choice(WORDS)
    return text.encode()


def texts(count, seed=0):
    """Returns texts as bytes."""
    rng = random.Random(seed)
    result = [b"", b" ", b"  ", b"\n", "▁".encode(), b"a", b"\xff"]
    while len(result) < count:
        parts = []
        for _ in range(rng.randint(1, 12)):
            parts.append(piece(rng))
            if rng.random() < 0.7:
                parts.append(rng.choice(SPACES[:5] if rng.random() < 0.9 else SPACES).encode())
        result.append(b"".join(parts))
    return result[:count]
