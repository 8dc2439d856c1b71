"""Checks the links of the Markdown files: a relative link must lead to an existing file and heading. Needs no network.

Run: python tests/lint/check_links.py [ROOT] [FILE...]   (default: the files that git knows in ROOT, the working folder)

A path in backquotes that begins with a folder of the repository (`src/core/checks.h`) must exist as well. Prints a line
for each link that leads nowhere, and exits with 1 where there is one.
"""
import collections
import pathlib
import re
import subprocess
import sys

kLink = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
kPath = re.compile(r"`((?:src|include|tests|docs|cmake|examples|benchmarks|fuzz|\.ci)/[\w./-]*\w)/?`")


def without_code(text):
    """Returns the text with empty lines in place of fenced blocks, so that line numbers stay the same."""
    return re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)


def anchors(path):
    """Returns the anchors of the headings of a file, as GitHub makes them."""
    uses = collections.Counter()
    found = set()
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*#*$", without_code(path.read_text()), flags=re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{slug}-{uses[slug]}" if uses[slug] else slug)
        uses[slug] += 1
    return found


def broken_links(root, file):
    for number, line in enumerate(without_code((root / file).read_text()).splitlines(), 1):
        for link in kLink.findall(re.sub(r"`[^`]*`", "", line)):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):  # http, https, mailto
                continue
            path, _, anchor = link.partition("#")
            target = (root / file).parent / path if path else root / file
            if not target.exists():
                yield f"{file}:{number}: no file {path}"
            elif anchor and anchor not in anchors(target):
                yield f"{file}:{number}: no heading #{anchor} in {path or file}"
        for path in kPath.findall(line) if file != "CHANGELOG.md" else []:  # it names files of the past
            if not (root / path).exists():
                yield f"{file}:{number}: no file {path}"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    files = sys.argv[2:] or subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [line for file in files if (root / file).is_file() for line in broken_links(root, file)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
