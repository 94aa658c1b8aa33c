#!/usr/bin/env bash
# Build BoltzTraP2 into .venv. Its spglib downloads a test framework while it is configured, which fails without a
# network: a cmake in front of the real one leaves the tests out. Needs cmake and g++.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(realpath "${VENV:-.venv}")
real=$(command -v cmake) || { echo "no cmake; install it: apt-get install cmake g++" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/cmake" <<SCRIPT
#!/bin/sh
case "\$1" in -D*) exec "$real" -DSPGLIB_WITH_TESTS=OFF "\$@" ;; *) exec "$real" "\$@" ;; esac
SCRIPT
chmod +x "$folder/cmake"
"$venv/bin/python" -m pip install --quiet -c constraints.txt "setuptools>=77" setuptools-scm wheel Cython
PATH="$folder:$PATH" "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation BoltzTraP2==26.3.1
(cd / && "$venv/bin/python" -c "import BoltzTraP2.sphere")
echo "BoltzTraP2 is in $venv"
