#!/usr/bin/env bash
# Build one engine per graph of this bundle with trtexec, on the device, and check that it is INT8.
#   ./build_engines.sh          TRTEXEC=/path/to/trtexec to use another one
set -euo pipefail
cd "$(dirname "$0")"
trtexec="${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}"
[ -x "$trtexec" ] || { echo "no trtexec at $trtexec; set TRTEXEC" >&2; exit 2; }
# Every trtexec says first which TensorRT it is; build_engines.py knows what that version is told of types.
banner="$("$trtexec" --help 2>&1 || true)"
[[ "$banner" =~ \[TensorRT\ v([0-9]+)\] ]] || { echo "$trtexec does not say its version; set TRTEXEC to TensorRT's own" >&2; exit 2; }
number="${BASH_REMATCH[1]}"
mkdir -p engines
shopt -s nullglob
for graph in model/*.onnx parts/*/*.onnx; do
    name="$(basename "$graph" .onnx)"
    flags="$(python3 build_engines.py --trtexec-flags "$number" --graph "$graph")"
    read -r -a types <<< "$flags"
    made_of="$(python3 build_engines.py --made-of --graph "$graph")"
    [ -f "engines/$name.plan" ] && [ -f "engines/$name.layers.json" ] && [ "$(cat "engines/$name.made_of" 2> /dev/null)" = "$made_of" ] \
        && { echo "$name.plan is there"; continue; }
    sha256sum --check --status <<< "$made_of" 2> /dev/null \
        || { echo "$graph or the weights beside it are not the files that bundle.json lists; copy the whole bundle again" >&2; exit 2; }
    # in the folder of the graph, so that weights.bin is found beside it; the name appears when the engine is whole
    engines=../engines
    case "$graph" in parts/*) engines=../../engines ;; esac
    rm -f "engines/$name.made_of"  # of the engine that goes; the new one comes last
    (cd "$(dirname "$graph")" && "$trtexec" --onnx="$name.onnx" ${types[@]+"${types[@]}"} --saveEngine="$engines/$name.plan.part" \
        --timingCacheFile="$engines/timing.cache" --builderOptimizationLevel=4 --profilingVerbosity=detailed \
        --exportLayerInfo="$engines/$name.layers.json" --skipInference)
    mv "engines/$name.plan.part" "engines/$name.plan"
    printf '%s\n' "$made_of" > "engines/$name.made_of.part"
    mv "engines/$name.made_of.part" "engines/$name.made_of"
done
python3 build_engines.py --check
