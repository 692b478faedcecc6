#!/usr/bin/env bash
# Build one engine per graph of this bundle with trtexec, on the device, and check that it is INT8.
#   ./build_engines.sh          TRTEXEC=/path/to/trtexec to use another one
set -euo pipefail
cd "$(dirname "$0")"
trtexec="${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}"
[ -x "$trtexec" ] || { echo "no trtexec at $trtexec; set TRTEXEC" >&2; exit 2; }
# fp32 graphs: the builder picks int8 and fp16 kernels (TensorRT 10.3, JetPack 6). fp16 graphs say every type themselves.
if grep -q '"precision": "fp16"' placements.json; then types=(--stronglyTyped); elif grep -q '"fp16": false' placements.json; then types=(--int8)  # values that fp16 does not hold
else types=(--int8 --fp16); fi
mkdir -p engines
for graph in model/*.onnx; do
    name="$(basename "$graph" .onnx)"
    [ -f "engines/$name.plan" ] && [ -f "engines/$name.layers.json" ] && { echo "$name.plan is there"; continue; }
    # in model/, so that weights.bin is found beside the graph; the name appears when the engine is whole
    (cd model && "$trtexec" --onnx="$name.onnx" "${types[@]}" --saveEngine="../engines/$name.plan.part" \
        --timingCacheFile=../engines/timing.cache --builderOptimizationLevel=4 --profilingVerbosity=detailed \
        --exportLayerInfo="../engines/$name.layers.json" --skipInference)
    mv "engines/$name.plan.part" "engines/$name.plan"
done
python3 build_engines.py --check
