#!/usr/bin/env bash
# Installs the Debian packages named in the files given, those that are missing only.
# The demo's data is documentation to Debian, which slim images leave out: it is asked for by path.
# Services of these packages (orthanc, postgresql) are not started: the tests start their own.
set -euo pipefail

mapfile -t wanted < <(grep -hv '^#' "$@" | sed '/^$/d')
missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ "${#missing[@]}" -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "these packages are missing, and there is no sudo to install them: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends \
  -o Dpkg::Options::='--path-include=/usr/share/doc/invesalius-examples/*' "${missing[@]}" >/dev/null
