#!/usr/bin/env bash
# Tests that `dev lint` fails on each kind of fault that it looks for, and names the fault. It runs in a small
# repository that this script creates. ROOT (the argument) is the repository of dev. Parts of lint whose tools are not
# installed are not tested.
set -euo pipefail
root=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

mkdir -p "$work"/{bin,docs,tests,src/core,src/nn,include/attend}
cp "$root/dev" "$root/.clang-format" "$work"
cp -r "$root/tests/lint" "$work/tests"
cp "$root/docs/Doxyfile" "$work/docs"
git -C "$work" init -q
printf '/build/\n/.venv\n/bin/\n' >"$work/.gitignore"
# A stand-in, so that no package is installed.
printf '#!/usr/bin/env bash\necho "install ok installed"\n' >"$work/bin/dpkg-query" && chmod +x "$work/bin/dpkg-query"
[ ! -d "$root/.venv" ] || ln -s "$root/.venv" "$work/.venv"

# Writes the standard input to a file of the small repository.
file() { cat >"$work/$1"; }

# expect CODE PATTERN PART...: runs `dev lint PART...`, and checks the exit code and that the output matches the
# pattern.
expect() {
  local code=0 output expected=$1 pattern=$2
  shift 2
  output=$(PATH=$work/bin:$PATH "$work/dev" lint "$@" 2>&1 </dev/null) || code=$?
  # shellcheck disable=SC2053  # a pattern
  if [ "$code" != "$expected" ] || [[ "$output" != $pattern ]]; then
    printf 'dev lint %s: exit code %s, expected %s; printed\n%s\nexpected\n%s\n\n' "$*" "$code" "$expected" "$output" "$pattern"
    failures=$((failures + 1))
  fi
}

printf 'core:\nnn: core\n' | file src/layers.txt
echo '#include "core/base.h"' | file src/nn/module.h
echo '#include <vector>' | file src/core/base.h
expect 0 '*' layers
echo '#include "nn/module.h"' | file src/core/base.h
expect 1 '*core/base.h:1: core must not include "nn/module.h"*dev: these includes are not allowed by src/layers.txt' layers
expect 1 '*core must not include*'  # without arguments, every part runs
echo '#include "../nn/module.h"' | file src/core/base.h
expect 1 '*core/base.h:1: "../nn/module.h" is not a path from src*' layers
echo '#include <vector>' | file src/core/base.h
mkdir "$work/src/attic" && echo | file src/attic/old.h
expect 1 '*attic/old.h: its folder is not listed in layers.txt*' layers
rm -r "$work/src/attic"

printf '# A page\n\n[a part](#a-part) and [the header](src/core/base.h), `src/nn/module.h`\n\n## A part\n' | file README.md
expect 0 '*' links
printf '# A page\n\n[a part](#a-port)\n' | file README.md
expect 1 '*README.md:3: no heading #a-port in README.md*dev: these links of the Markdown files are broken' links
printf '# A page\n\n[a file](docs/page.md)\n' | file README.md
expect 1 '*README.md:3: no file docs/page.md*' links
printf '# A page\n\nSee `src/core/bass.h`.\n' | file README.md
expect 1 '*README.md:3: no file src/core/bass.h*' links

if [ -f "$work/.venv/clang-format" ]; then
  expect 0 '*' layout
  echo 'int  a ;' | file src/nn/module.cpp
  expect 1 '*src/nn/module.cpp:1:4: error: *dev: the layout is off: run ./dev format' layout
else
  echo "clang-format is not installed: its part is left out"
fi

if command -v doxygen >/dev/null; then
  file include/attend/a.h <<'END'
#pragma once
#include <attend/export.h>
namespace attend {
/// A choice.
enum class Choice {
  /// This one.
  one,
  two,
};
/// Options.
struct ATTEND_API Options {
  Options() = default;
  /// The first and the second.
  TORCH_ARG(int64_t, first) = 0;
  TORCH_ARG(int64_t, second) = 0;
  /// Both of them.
  int third, fourth;
  void reset();
  int fifth;
};
int function(int argument);
namespace detail {
int hidden();
}
}  // namespace attend
END
  name() { printf '*include/attend/a.h:%s: attend::%s has no documentation: *' "$1" "$2"; }
  expect 1 "$(name 5 Choice::two)$(name 15 Options::second)$(name 19 Options::fifth)$(name 21 function)dev: these *" docs
  undocumented=$( (cd "$work" && python3 tests/lint/check_docs.py build/docs/xml || true) | wc -l)
  [ "$undocumented" = 4 ] || { echo "$undocumented names without documentation, expected 4" && failures=$((failures + 1)); }
  file include/attend/a.h <<'END'
#pragma once
namespace attend {
/// @param argumant The argument.
int function(int argument);
}  // namespace attend
END
  expect 1 "*include/attend/a.h:*argument 'argumant'*dev: Doxygen can't read these comments of the public headers" docs
  file include/attend/a.h <<'END'
#pragma once
namespace attend {
/// The value of `argument`.
int function(int argument);
}  // namespace attend
END
  expect 0 '*' docs
else
  echo "Doxygen is not installed: its part is left out"
fi

[ "$failures" = 0 ] || exit 1
