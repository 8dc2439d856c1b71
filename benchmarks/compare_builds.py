#!/usr/bin/env python3
"""Compares two builds of the benchmark program, each with its own library: whether attend itself became slower.

    benchmarks/compare_builds.py OLD_BENCH NEW_BENCH [--filter TEXT] [--exclude TEXT] [--threads N] [--pairs N]

Each row runs alternately by the old and by the new program, `--pairs` times. Printed are the medians of attend's own
time (or memory) and the median over the pairs of new / old; rows above the limit are measured again, with all their
pairs counted, before they are reported. The exit status is 1 if a row is slower by more than `--limit` per cent.

Rows are matched by name. Where the two programs have equally many other rows, these are matched by their order, since
a row may have been renamed.
"""

import argparse
import csv
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

LENGTHS = "time over the length"  # a series instead of a row


class Bench:
    """A benchmark program, run with the library of its own build folder."""

    def __init__(self, path):
        self.path = pathlib.Path(path).resolve(strict=True)
        build = self.path.parent.parent
        self.environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(
            part for part in (str(build), os.environ.get("LD_LIBRARY_PATH")) if part)}

    def run(self, *arguments):
        return subprocess.run([self.path, *arguments], env=self.environment, check=True, stdout=subprocess.PIPE,
                              text=True).stdout

    def library(self):
        lines = subprocess.run(["ldd", self.path], env=self.environment, check=True, stdout=subprocess.PIPE,
                               text=True).stdout.splitlines()
        return next(pathlib.Path(line.split()[2]).resolve() for line in lines if "libattend.so" in line)

    def rows(self):
        return [name for name in self.run("--list").splitlines() if name != LENGTHS]

    def measure(self, name, threads, pairs):
        """Returns attend's time, with its unit, for each number of threads, such as {2: (1.5, "ms")}."""
        with tempfile.TemporaryDirectory() as folder:
            self.run("--filter", name, "--pairs", str(pairs), "--output", folder,
                     *(["--threads", str(threads)] if threads else []))
            with open(pathlib.Path(folder) / "ratios.csv", newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["name"] == name]
        return {int(row["threads"]): (float(row.get("attend") or row["ours"]), row["unit"]) for row in rows}


def matched(old_rows, new_rows):
    """Returns the pairs of old and new names of the same row, and the names without a counterpart."""
    only_old = [name for name in old_rows if name not in new_rows]
    only_new = [name for name in new_rows if name not in old_rows]
    if len(only_old) != len(only_new):
        both = [name for name in new_rows if name in old_rows]
        return [(name, name) for name in both], only_old + only_new
    renamed = dict(zip(only_new, only_old))
    return [(renamed.get(name, name), name) for name in new_rows], []


class Row:
    """The measurements of one row with one number of threads."""

    def __init__(self, unit):
        self.unit, self.old, self.new = unit, [], []

    def ratio(self):
        return statistics.median(new / old for old, new in zip(self.old, self.new))


def measure(old, new, names, options, rows):
    """Measures a row `options.pairs` times with both builds, and adds the times to the row of each number of threads.
    The build that runs first alternates."""
    for pair in range(options.pairs):
        sides = [(old, names[0]), (new, names[1])]
        results = {}
        for bench, name in sides if pair % 2 == 0 else reversed(sides):
            results[bench] = bench.measure(name, options.threads, options.samples)
        for threads, (value, unit) in results[new].items():
            if threads not in results[old]:
                continue
            row = rows.setdefault(threads, Row(unit))
            row.old.append(results[old][threads][0])
            row.new.append(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--filter", default="", help="only the rows whose new name contains this text")
    parser.add_argument("--exclude", action="append", default=[], help="not the rows whose new name contains this text")
    parser.add_argument("--threads", type=int, help="number of threads (default: as the program chooses)")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs of the two programs (default: 5)")
    parser.add_argument("--samples", type=int, default=3, help="measurements within one run (default: 3)")
    parser.add_argument("--limit", type=float, default=3, help="per cent by which a row may be slower (default: 3)")
    parser.add_argument("--retries", type=int, default=2, help="how often a slower row is measured again (default: 2)")
    options = parser.parse_args()
    old, new = Bench(options.old), Bench(options.new)
    if old.library() == new.library():
        sys.exit(f"compare_builds.py: both programs load {old.library()}")

    pairs, unmatched = matched(old.rows(), new.rows())
    for name in unmatched:
        print(f"not compared, since only one program has it: {name}")
    limit = 1 + options.limit / 100
    slower = []
    print(f"{'row':<80} {'threads':>7} {'old':>12} {'new':>12} {'new / old':>10}")
    for names in pairs:
        if options.filter not in names[1] or any(text in names[1] for text in options.exclude):
            continue
        rows = {}
        for _ in range(1 + options.retries):
            measure(old, new, names, options, rows)
            if all(row.ratio() <= limit for row in rows.values()):
                break
        for threads, row in sorted(rows.items()):
            is_slower = row.ratio() > limit
            print(f"{names[1]:<80} {threads:>7} {statistics.median(row.old):>9.4g} {row.unit} "
                  f"{statistics.median(row.new):>9.4g} {row.unit} {row.ratio():>10.3f}{'  SLOWER' * is_slower}", flush=True)
            if is_slower:
                slower.append(f"{names[1]}, threads: {threads}: {100 * (row.ratio() - 1):.1f} %")
    print(f"\nslower by more than {options.limit:g} %: " + ("\n  ".join(["", *slower]) if slower else "no row"))
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()
