"""Times attend against compiled FlexAttention on the same tensors: the result is verified first, then both sides run
alternately. Prints the median times of attend and of FlexAttention in milliseconds, and the median ratio."""

import argparse
import statistics
import sys
import time

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

WINDOW, SOFTCAP = 256, 20.0


def variant(name, length, slopes):
    """Returns the arguments of attend::attention and of flex_attention."""
    def block_mask(allowed):
        return {"block_mask": create_block_mask(allowed, None, None, length, length, device="cpu")}

    if name == "window":
        return {"window": [WINDOW, WINDOW]}, block_mask(lambda b, h, q, k: (q - k).abs() <= WINDOW)
    if name == "causal":
        return {"is_causal": True}, block_mask(lambda b, h, q, k: k <= q)
    if name == "alibi":
        return {"alibi_slopes": slopes}, {"score_mod": lambda s, b, h, q, k: s - slopes[h] * (q - k).abs()}
    return {"softcap": SOFTCAP}, {"score_mod": lambda s, b, h, q, k: SOFTCAP * torch.tanh(s / SOFTCAP)}


def milliseconds(run):
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=["window", "alibi", "softcap", "causal"])
    parser.add_argument("--library", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--pairs", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.ops.load_library(options.library)
    torch.manual_seed(0)

    length = 8192 if options.variant == "window" else 2048
    query, key, value = (torch.randn(1, 8, length, 64) for _ in range(3))
    our_arguments, baseline_arguments = variant(options.variant, length, torch.linspace(0.01, 0.5, 8))
    compiled = torch.compile(flex_attention)

    def ours():
        return torch.ops.attend.attention(query, key, value, **our_arguments)

    def baseline():
        return compiled(query, key, value, **baseline_arguments)

    with torch.no_grad():
        compilation = milliseconds(baseline) / 1e3
        expected = baseline()
        error = ((ours() - expected).abs().max() / expected.abs().max()).item()
        if not error <= 8 * 2**-20:  # the tolerance of verify.h
            sys.exit(f"flex.py: {options.variant}: off by {error:.1e} of the largest element")
        pairs = [(milliseconds(ours), milliseconds(baseline)) for _ in range(options.pairs)]
    print(statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs),
          statistics.median(p[1] / p[0] for p in pairs))
    print(f"flex.py: {options.variant}: FlexAttention took {compilation:.0f} s to compile", file=sys.stderr)


if __name__ == "__main__":
    main()
