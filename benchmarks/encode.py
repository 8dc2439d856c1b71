"""Times attend's sentence encoder against transformers on passages: the vectors are compared first, then both
sides run alternately. Prints the median times of attend and of transformers in milliseconds, and the median ratio."""

import argparse
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

MAX_LENGTH, BATCH = 256, 32


def passages(vocabulary, count):
    """Returns texts of 10 to 200 words, the lengths of paragraphs."""
    words = [word for word in vocabulary if word.isalpha() and len(word) > 2]
    return [" ".join(random.choices(words, k=random.randint(10, 200))) for _ in range(count)]


class Transformers:
    """Python's transformers with mean pooling over the tokens of a text, normalised to length 1. Texts are batched by 32,
    in the given order or, as sentence_transformers does, in the order of descending length."""

    def __init__(self, folder, is_sorted):
        self.is_sorted = is_sorted
        self.tokenizer, self.model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def encode(self, texts):
        order = sorted(range(len(texts)), key=lambda n: -len(texts[n]) if self.is_sorted else n)
        vectors = torch.empty(len(texts), self.model.config.hidden_size)
        for first in range(0, len(texts), BATCH):
            indices = order[first : first + BATCH]
            batch = self.tokenizer([texts[n] for n in indices], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            hidden, mask = self.model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            vectors[indices] = torch.nn.functional.normalize(mean, dim=-1)
        return vectors


def milliseconds(run):
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--passages", type=int, default=1000)
    parser.add_argument("--sorted", action="store_true")
    parser.add_argument("--program", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--pairs", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(0)
    texts = passages((pathlib.Path(options.model) / "vocab.txt").read_text().splitlines(), options.passages)
    baseline = Transformers(options.model, options.sorted)

    with tempfile.TemporaryDirectory() as folder:
        lines, vectors = pathlib.Path(folder) / "texts", pathlib.Path(folder) / "vectors"
        lines.write_text("\n".join(texts) + "\n")
        command = [options.program, "--encode", options.model, str(lines), str(vectors), "--threads", str(options.threads)]

        def ours():
            return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

        ours()
        error = (load_file(vectors)["vectors"] - baseline.encode(texts)).abs().max().item()
        if not error <= 1e-5:
            sys.exit(f"encode.py: off by {error:.1e}")
        pairs = [(ours(), milliseconds(lambda: baseline.encode(texts))) for _ in range(options.pairs)]
    print(statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs),
          statistics.median(p[1] / p[0] for p in pairs))


if __name__ == "__main__":
    main()
