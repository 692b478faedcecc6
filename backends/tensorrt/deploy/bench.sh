#!/usr/bin/env bash
# Time every engine of this bundle on the device, without transfers, with CUDA graphs. Fix the clocks first:
#   sudo nvpmodel -m 0 && sudo jetson_clocks
#   ./bench.sh                  writes engines/NAME.times.json and engines/NAME.profile.json
set -euo pipefail
cd "$(dirname "$0")"
trtexec="${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}"
[ -x "$trtexec" ] || { echo "no trtexec at $trtexec; set TRTEXEC" >&2; exit 2; }
shopt -s nullglob
plans=(engines/*.plan)
[ ${#plans[@]} -gt 0 ] || { echo "no engines; run build_engines.py or build_engines.sh first" >&2; exit 2; }
for plan in "${plans[@]}"; do
    case "$plan" in engines/text_encoder*) continue ;; esac  # runs once per picture; trtexec's random ids are no tokens
    "$trtexec" --loadEngine="$plan" --useCudaGraph --useSpinWait --noDataTransfers --separateProfileRun --warmUp=500 \
        --duration=10 --dumpProfile --exportProfile="${plan%.plan}.profile.json" --exportTimes="${plan%.plan}.times.json"
done
