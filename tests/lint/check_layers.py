"""Checks every include in src against src/layers.txt.

Run: python tests/lint/check_layers.py [FOLDER]   (FOLDER has layers.txt; default: src)

Prints a line for each include that has no edge there, and exits with 1 where there is one.
"""
import pathlib
import re
import sys


def read_layers(path):
    """Returns for each folder the folders that it may include."""
    layers = {}
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line:
            folder, _, allowed = line.partition(":")
            layers[folder.strip()] = {folder.strip(), *allowed.split()}
    return layers


def layer_of(path, layers):
    """Returns the innermost listed folder that contains a path; None if no listed folder does."""
    return next((str(folder) for folder in pathlib.PurePosixPath(path).parents if str(folder) in layers), None)


def forbidden_includes(root, layers):
    for file in sorted([*root.rglob("*.h"), *root.rglob("*.cpp")]):
        name = file.relative_to(root).as_posix()
        layer = layer_of(name, layers)
        if layer is None:
            yield f"{name}: its folder is not listed in layers.txt"
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            included = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if not included:
                continue
            if not (root / included[1]).is_file():
                yield f'{name}:{number}: "{included[1]}" is not a path from src'
            elif layer_of(included[1], layers) not in layers[layer]:
                yield f'{name}:{number}: {layer} must not include "{included[1]}"'


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "src")
    found = list(forbidden_includes(root, read_layers(root / "layers.txt")))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
