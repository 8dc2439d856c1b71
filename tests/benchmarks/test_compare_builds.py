"""benchmarks/compare_builds.py with programs whose times are given."""

import contextlib
import io
import pathlib
import sys
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))
import compare_builds


class FakeBench:
    """A program with these times for each run of a row; the last one repeats."""

    def __init__(self, times):
        self.times, self.runs = times, dict.fromkeys(times, 0)

    def library(self):
        return id(self)

    def rows(self):
        return list(self.times)

    def measure(self, name, threads, pairs):
        times = self.times[name]
        time = times[min(self.runs[name], len(times) - 1)]
        self.runs[name] += 1
        return {threads or 1: (time, "ms")}


class CompareBuilds(unittest.TestCase):
    def compare(self, old, new, *options):
        """The exit status and the output."""
        programs = {"old": old, "new": new}
        output = io.StringIO()
        with mock.patch.object(compare_builds, "Bench", programs.get), contextlib.redirect_stdout(output), \
                mock.patch.object(sys, "argv", ["compare_builds.py", "old", "new", *options]), \
                self.assertRaises(SystemExit) as stop:
            compare_builds.main()
        return stop.exception.code, output.getvalue()

    def test_slower_row(self):
        old, new = FakeBench({"a": [1.0], "b": [2.0]}), FakeBench({"a": [1.02], "b": [2.2]})
        status, output = self.compare(old, new, "--pairs", "1", "--retries", "1")
        self.assertEqual(status, 1)
        self.assertIn("slower by more than 3 %: \n  b, threads: 1: 10.0 %", output)
        self.assertEqual((new.runs["a"], new.runs["b"]), (1, 2))

    def test_slower_only_at_first(self):
        old, new = FakeBench({"a": [1.0]}), FakeBench({"a": [1.5, 1.0]})
        status, output = self.compare(old, new, "--pairs", "1", "--retries", "2")
        self.assertEqual(status, 0)
        self.assertIn("slower by more than 3 %: no row", output)

    def test_renamed_rows_are_matched_by_order(self):
        old, new = FakeBench({"a": [1.0], "b / without": [1.0]}), FakeBench({"a": [1.0], "b / attend without": [2.0]})
        status, output = self.compare(old, new)
        self.assertEqual(status, 1)
        self.assertIn("b / attend without, threads: 1: 100.0 %", output)

    def test_row_of_one_program(self):
        old, new = FakeBench({"a": [1.0]}), FakeBench({"a": [1.0], "b": [2.0]})
        status, output = self.compare(old, new)
        self.assertEqual(status, 0)
        self.assertIn("not compared, since only one program has it: b", output)

    def test_selection(self):
        old, new = FakeBench({"a": [1.0], "ab": [1.0], "c": [1.0]}), FakeBench({"a": [1.0], "ab": [1.0], "c": [2.0]})
        status, _ = self.compare(old, new, "--filter", "a", "--exclude", "b", "--threads", "2")
        self.assertEqual(status, 0)
        self.assertEqual(list(new.runs.values()), [5, 0, 0])

    def test_the_same_library(self):
        bench = FakeBench({"a": [1.0]})
        status, _ = self.compare(bench, bench)
        self.assertIn("both programs load", status)


if __name__ == "__main__":
    unittest.main()
