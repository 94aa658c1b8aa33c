#!/bin/sh
# Put the 3D viewer (3Dmol.js, BSD-3-Clause) where the dashboard serves it from; without it crystals are drawn with Plotly.
#   deploy/fetch_viewer.sh [FOLDER]     default: platform/dashboard/static/vendor beside this script
# It is taken from the npm registry by version and hash, with npm as it is configured; nothing is run of it here.
set -eu
version=2.5.5
sha512=kqNHouGqq3YfW58174tdERvm0XYTmP0tavQKOqIw1ouc2OJ7epkXEFrtEkVXV0clBZT2Ze2xHRC/qxX0u0qCdw==
folder=${1:-$(dirname "$0")/../platform/dashboard/static/vendor}
[ ! -s "$folder/3Dmol-min.js" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent --ignore-scripts "3dmol@$version" >/dev/null)
found=$(openssl dgst -sha512 -binary "$work/3dmol-$version.tgz" | openssl base64 -A)
[ "$found" = "$sha512" ] || {
    echo "3dmol-$version.tgz has the SHA-512 $found; expected $sha512; do not use it" >&2
    exit 1
}
tar -xzf "$work/3dmol-$version.tgz" -C "$work" package/build/3Dmol-min.js
mkdir -p "$folder"
mv "$work/package/build/3Dmol-min.js" "$folder/3Dmol-min.js"
