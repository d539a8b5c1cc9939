#!/usr/bin/env bash
# One command on a machine with a GPU: at most ten minutes, no network. From the root of the source tree:
#
#     bash tests/gpu/run.sh
#
# Needs torch with CUDA, pytest, hypothesis, numpy and a C++ compiler; nvcc, libyaml's headers and compute-sanitizer where the library
# is built there. A built linger/_C.abi3.so beside the sources is taken as it is. What tells most comes first; every part has its own
# limit, and one that fails does not stop the others. $OUT (default build/gpu) gets a log for each part and table.txt, printed last.
set -u
cd "$(dirname "$0")/../.."
OUT=${OUT:-build/gpu}; mkdir -p "$OUT"; TABLE=$OUT/table.txt; : > "$TABLE"
PY=${PY:-python3}
export PYTHONPATH=$PWD LINGER_REQUIRE_CUDA=1
START=$SECONDS
part() { # part NAME LIMIT COMMAND: runs it, notes result and seconds
    local name=$1 limit=$2 began=$SECONDS left=$((580 - (SECONDS - START))) rc; shift 2
    [ "$left" -lt "$limit" ] && limit=$left
    if [ "$limit" -lt 5 ]; then echo "$name: no time left" >> "$TABLE"; return 1; fi
    timeout -k 5 "$limit" bash -c "$*" > "$OUT/$name.log" 2>&1; rc=$?
    printf '%-12s rc %-4s %4d s   %s\n' "$name" "$rc" $((SECONDS - began)) "$(grep -v '^$' "$OUT/$name.log" | tail -1 | cut -c1-100)" >> "$TABLE"
    return $rc
}
{ nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; nvcc --version | tail -2 | head -1
  $PY -c 'import torch; print(torch.__version__, torch.version.cuda, torch.cuda.get_device_capability())'; } > "$OUT/machine.txt" 2>&1
cat "$OUT/machine.txt" >> "$TABLE"

# 1. The extension: what is there, or built here for this GPU.
if ! part import 60 "$PY -c 'import linger; from linger.ops.checks import has_cuda_kernels; assert has_cuda_kernels()'"; then
    part build 200 "LINGER_CUDA=1 LINGER_ARCH=native $PY setup.py -q build_ext --inplace"
fi
# 2. The kernels against the C reference: the programs that run emulated on every CPU, built by nvcc.
part kernels 200 "make -s -j$(nproc) -C tests/c/cuda OUT=$PWD/build/gpu_tests gpu"
# 3. What emulation cannot see: the real memory checker and race detector, on few cases.
for tool in memcheck racecheck; do
    part $tool 60 "for t in build/gpu_tests/gpu/test_*_cuda; do LGR_CASES=4 compute-sanitizer --tool $tool --error-exitcode 3 \$t || exit 3; done"
done
# 4. Operators and whole models through torch: bits of the CPU, no host read, graphs, streams, AMP, other devices.
part operators 120 "$PY -m pytest -q -p no:cacheprovider -p tests.gpu.through_gpu tests/ops/test_conv.py tests/ops/test_linear.py tests/ops/test_elementwise.py"
part models 120 "$PY -m pytest -q -p no:cacheprovider tests/ops/test_cuda.py tests/gpu"
# 5. The example, then figures.
part demo 60 "$PY examples/digits.py --device cuda"
part bench 100 "$PY -m tests.gpu.bench --out $OUT/bench.json"
cat "$OUT/bench.log" >> "$TABLE" 2> /dev/null
echo "total $((SECONDS - START)) s" >> "$TABLE"
cat "$TABLE"
