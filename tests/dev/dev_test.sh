#!/usr/bin/env bash
# Tests that each failure of DEV (the argument) ends it with exit code 1 and one line that states the reason. DEV runs
# in an empty folder, where stand-ins replace the programs that it calls.
set -euo pipefail
dev=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# Sets up `$work` as a machine with every package and no LibTorch, on which the stand-in python3 answers for pip.
begin() {
  rm -rf "${work:?}"/*
  mkdir -p "$work/bin" "$work/torch"
  cp "$dev" "$work/dev"
  local tool
  for tool in awk bash cat cp dirname env grep head mkdir mktemp nproc rm sed sort tail tr; do
    ln -s "$(command -v "$tool")" "$work/bin/$tool"
  done
  stand_in g++
  stand_in cmake
  stand_in ninja
  stand_in dpkg-query 'echo "install ok installed"'
  stand_in id 'echo 1000'
  stand_in uname 'echo x86_64'
  # Has no torch; `-m venv` makes a copy of itself, whose pip prints and returns what the test wants.
  stand_in python3 'case "$*" in
    "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip"*) echo "$*" >>pip_calls; . ./pip ;;
  esac'
}

stand_in() { printf '#!/usr/bin/env bash\n%s\n' "${2:-}" >"$work/bin/$1" && chmod +x "$work/bin/$1"; }

torch() {
  echo >"$work/torch/TorchConfig.cmake"
  [ -z "$1" ] || printf 'set(PACKAGE_VERSION "%s")\n' "$1" >"$work/torch/TorchConfigVersion.cmake"
}

# expect CODE LINE ARGUMENTS...: runs dev with the arguments, and checks the exit code and its output apart from the
# progress messages.
expect() {
  local code=0 output expected_code=$1 line=$2
  shift 2
  output=$(cd "$work" && env -i PATH="$work/bin" HOME="$work" TMPDIR="$work" ${torch_dir:+Torch_DIR="$torch_dir"} \
    CMAKE_PREFIX_PATH=":$work/elsewhere" \
    bash ./dev "$@" 2>&1 </dev/null) || code=$?
  output=$(grep -v '^==> ' <<<"$output" || true)
  # shellcheck disable=SC2053  # a pattern
  if [ "$code" != "$expected_code" ] || [[ "$output" != $line ]]; then
    printf 'dev %s: exit code %s, expected %s; printed\n%s\nexpected\n%s\n\n' "$*" "$code" "$expected_code" "$output" "$line"
    failures=$((failures + 1))
  fi
}

torch_dir=
begin
expect 2 'dev: no command fly; ./dev lists them' fly
expect 0 './dev COMMAND*demo *train *search *test *bench *docs *format *lint *asan *clang *fuzz *clean *'

begin # neither root nor sudo
stand_in dpkg-query 'case "$*" in *libfmt-dev) exit 1 ;; *) echo "install ok installed" ;; esac'
stand_in apt-get
expect 1 'dev: missing: libfmt-dev ; as root run: apt-get install libfmt-dev ' demo
rm "$work/bin/apt-get"
expect 1 'dev: missing: libfmt-dev (names of Debian packages); install them, no apt-get is here' test

begin # no network for apt-get, whose update then only warns
stand_in id 'echo 0'
rm "$work/bin/ninja"
stand_in apt-get 'case "$1" in
  update) echo "Err:1 http://deb.debian.org/debian stable InRelease"; echo "  Temporary failure resolving deb.debian.org" ;;
  *) echo "E: Unable to locate package ninja-build"; exit 100 ;;
esac'
expect 1 'dev: apt-get could not install ninja-build : no network (log: *)' demo
stand_in apt-get 'echo "E: Unable to locate package ninja-build"; exit 100'
expect 1 'dev: apt-get could not install ninja-build : E: Unable to locate package ninja-build (log: *)' demo

begin # no LibTorch for the processor
stand_in uname 'echo armv7l'
expect 1 'dev: no LibTorch is published for armv7l: x86_64 or aarch64 is needed, or a LibTorch of yours in CMAKE_PREFIX_PATH' demo

begin # no network for pip
cat >"$work/pip" <<'PIP'
echo "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(Temporary failure in name resolution)'"
echo "ERROR: Could not find a version that satisfies the requirement torch==2.13.0+cpu (from versions: none)"
exit 1
PIP
expect 1 "dev: pip can't install torch==*: no network; install it, or set CMAKE_PREFIX_PATH to a LibTorch >= 2.13" demo
expect 1 "dev: pip can't install clang-format *: no network" format

# A package index with only the CUDA build, and a pip that must be updated before it can report what it would install
begin
cat >"$work/pip" <<'PIP'
case "$*" in
  *+cpu*) echo "ERROR: No matching distribution found for torch"; exit 1 ;;
  *"pip>=22.2") >new_pip ;;
  *--dry-run*) [ -f new_pip ] || { echo "no such option: --dry-run"; exit 2; }; echo '{"name": "nvidia-cublas"}' ;;
esac
PIP
expect 1 'dev: pip finds only the CUDA build of torch *' demo

begin # a package index without torch
echo 'case "$*" in *torch==*) echo "ERROR: No matching distribution found for torch"; exit 1 ;; esac' >"$work/pip"
expect 1 "dev: pip can't install torch==*: ERROR: No matching distribution found for torch; install it, or *" demo

begin # a LibTorch that is missing, has no version, or is too old
torch_dir=$work/torch
expect 1 "dev: no TorchConfig.cmake in Torch_DIR=$work/torch: correct it, or unset it" demo
torch ''
expect 1 "dev: the LibTorch in $work/torch has no version in TorchConfigVersion.cmake: 2.13 or newer is needed" demo
torch 2.12.1
expect 1 "dev: LibTorch 2.12.1 in $work/torch is too old: 2.13 or newer is needed (*)" test

begin # nothing is missing: the built program gets the arguments, and is not run if the build fails
torch 2.13.0
stand_in cmake 'mkdir -p build/release/examples && cp program build/release/examples/demo'
printf '#!/usr/bin/env bash\necho "demo $*"\n' >"$work/program" && chmod +x "$work/program"
expect 0 'demo --an argument' demo --an argument
stand_in cmake '[ "$1" != --build ]'
expect 1 'dev: the build failed: see above' demo

[ "$failures" = 0 ] || exit 1
