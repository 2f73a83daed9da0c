#!/usr/bin/env bash
# A fresh user's path, timed: clone, environment, artifacts from the remote, verdict table.
#
#   bench/fresh_user.sh [FOLDER]     FOLDER: where to clone to; default a new one, removed at the end
#
# From this checkout as it is committed, whose artifacts must have been pushed (`dvc push
# --run-cache`). Fails where anything is recomputed or a verdict differs. By the environment:
# SETUP, what makes the environment, default `make setup`; CHECKOUT, another than this script's;
# REMOTE, a folder or URL to pull from instead of the default.
set -euo pipefail
checkout=${CHECKOUT:-$(cd "$(dirname "$0")/.." && pwd)}
folder=${1:-$(mktemp -d)/langsae}
log=$folder.log
mkdir -p "$(dirname "$folder")"
[ $# -gt 0 ] || trap 'rm -rf "$(dirname "$folder")"' EXIT
export PATH=$folder/.venv/bin:$PATH DVC_NO_ANALYTICS=1

# The default remote as .dvc/config has it; a folder's path there is relative to .dvc/.
name=$(sed -n 's/^ *remote *= *//p' "$checkout/.dvc/config" | head -n 1)
url=$(sed -n "/remote \"$name\"/,/^\[/s/^ *url *= *//p" "$checkout/.dvc/config" | head -n 1)
case $url in *://* | /*) ;; *) url=$checkout/.dvc/$url ;; esac
remote=${REMOTE:-$url}

total=0
row() { printf '| %-34s | %7s | %7s |\n' "$1" "$2" "$3"; }
size() { du -sm "$@" 2>/dev/null | awk '{ sum += $1 } END { printf "%.2f", sum / 1024 }'; }
timed() {   # NAME FOLDER-TO-WEIGH COMMAND…
    local what=$1 weighed=$2 start end
    shift 2
    start=$(date +%s.%N)
    "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; echo "fresh_user: '$*' failed; see $log" >&2; exit 1; }
    end=$(date +%s.%N)
    total=$(awk "BEGIN { print $total + $end - $start }")
    row "$what" "$(awk "BEGIN { printf \"%.1f\", ($end - $start) / 60 }")" "$(size "$folder/$weighed")"
}
use_remote() { dvc remote modify --local "$name" url "$remote"; }
pull() {
    langsae repro --pull >"$folder.repro" || return
    ! grep "^Running stage" "$folder.repro" # one that ran was not in the remote
}

echo "$(nproc) cores, $(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo); remote $remote"
row step minutes GB
row --- --: --:
timed "clone" . git clone --quiet "$checkout" "$folder"
cd "$folder"
timed "environment" .venv bash -c "${SETUP:-make setup}"
use_remote >>"$log"
timed "artifacts, \`langsae repro --pull\`" .dvc/cache pull
timed "verdicts, \`langsae verify\`" results langsae verify
row "in all" "$(awk "BEGIN { printf \"%.1f\", $total / 60 }")" "$(size "$folder")"
