#!/usr/bin/env bash
# Set up everything that `make discover` and `make test` need on Debian or Ubuntu: system packages where missing, .venv,
# the pinned Python packages. Says what it does; does nothing the second time.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=${VENV:-.venv}
say() { printf 'setup: %s\n' "$*"; }

root=""
[ "$(id -u)" -eq 0 ] || root=sudo

missing=()
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
header=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h
[ -e "$header" ] || missing+=(python3-dev)
command -v g++ >/dev/null || missing+=(g++)
command -v cmake >/dev/null || missing+=(cmake) # BoltzTraP2 is built with it
command -v openssl >/dev/null || missing+=(openssl) # the tests of TLS make certificates
[ -e /usr/include/xc.h ] || missing+=(libxc-dev)
[ -e /usr/include/x86_64-linux-gnu/openblas-pthread/cblas.h ] || [ -e /usr/include/cblas.h ] || missing+=(libopenblas-dev)
command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core) # the tests of the dashboard
# The embedded mongod links these.
libraries=$(/sbin/ldconfig -p 2>/dev/null || true)
for pair in libcurl.so.4:libcurl4 libssl.so.3:libssl3 liblzma.so.5:liblzma5; do
    [[ $libraries == *${pair%%:*}* ]] || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || {
        say "missing: ${missing[*]} (Debian's names), and there is no apt-get here; install them and run this again" >&2
        exit 1
    }
    say "installing Debian packages: ${missing[*]}"
    $root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || {
    say "$("$python" --version) found; Wyloop needs Python 3.11 or 3.12: run with PYTHON=python3.11" >&2
    exit 1
}
if [ ! -x "$venv/bin/python" ]; then
    say "making $venv"
    "$python" -m venv "$venv"
fi

stamp="$venv/.wyloop-$(cat pyproject.toml constraints.txt deploy/install*.sh | sha256sum | cut -c1-16)"
if [ ! -e "$stamp" ]; then
    pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
    # torch first and alone, so that nothing pulls another build; TORCH_ARGS may name the index of its CPU builds.
    say "installing torch (CPU)"
    # shellcheck disable=SC2086 # several arguments are meant
    "${pip[@]}" -c constraints.txt ${TORCH_ARGS:-} torch
    say "installing Wyloop with GPAW and the development tools (4 to 8 minutes the first time)"
    GPAW_CONFIG="$PWD/models/physics/gpaw_siteconfig.py" "${pip[@]}" -c constraints.txt -e '.[dft,dev,docs]'
    deploy/install_boltztrap.sh || say "no BoltzTraP2: transport jobs will fail and say how to install it"
    deploy/fetch_viewer.sh || say "no 3D viewer (it comes with npm): the dashboard draws crystals with Plotly"
    rm -f "$venv"/.wyloop-*
    touch "$stamp"
    say "done"
fi
