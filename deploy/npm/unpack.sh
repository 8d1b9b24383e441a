#!/usr/bin/env bash
# Unpacks an npm package, named in a file with its version and checksum, into a folder: no more than
# the package itself, of what it depends on nothing, and none of its scripts is run.
# usage: unpack.sh FILE FOLDER
set -euo pipefail

here=$(dirname "$0")
read -r package integrity <"$1"
folder=$2
command -v npm >/dev/null || "$here/../apt/install.sh" "$here/../apt/npm.txt"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm pack --silent --pack-destination "$work" "$package" >/dev/null
tarball=("$work"/*.tgz)
found=sha512-$(openssl dgst -sha512 -binary "${tarball[0]}" | base64 -w0)
[ "$found" = "$integrity" ] || { echo "$package is not what it was: $found, not $integrity" >&2; exit 1; }
rm -rf "$folder"
mkdir -p "$folder"
tar -xzf "${tarball[0]}" -C "$folder" --strip-components=1 --no-same-owner --exclude='*.map'
