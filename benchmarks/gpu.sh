#!/usr/bin/env bash
# All that only a GPU can show, for docs/performance.md and docs/results.md:
#     bash benchmarks/gpu.sh [data root] [folder for the results]
# in an environment with memmeta and rich, some half an hour on one card. A part whose result is there
# is not run again. Without the data of CIFAR-FS the training runs say so, and the rest is done.
set -uo pipefail
cd "$(dirname "$0")/.."
data=${1:-data}
out=${2:-benchmarks/results}
python=${PYTHON:-python}
mkdir -p "$out"

part() {
  local result=$out/$1
  shift
  [ -s "$result" ] && return
  echo "$* > $result"
  "$@" > "$result.part" && mv "$result.part" "$result"
}

step_time() { "$python" benchmarks/step_time.py --json --device cuda "$@"; }

part step_84.json step_time --image-size 84 --filters 32 --task-batch 4 --task-batch 32 \
  --inner-steps 1 --inner-steps 20 --cg-steps 1 --cg-steps 20
part step_32.json step_time --filters 64 --queries 5 --task-batch 4 --task-batch 32 \
  --inner-steps 1 --inner-steps 20 --cg-steps 1 --cg-steps 20
part chunk_84.json step_time --image-size 84 --filters 32 --task-batch 32 \
  --chunk 0 --chunk 800 --chunk 100 --precision float32 --precision bfloat16
part peers.txt "$python" benchmarks/peers.py --task-batch 32
part memory.txt "$python" benchmarks/memory_vs_k.py --device cuda --out "$out"
part packing.txt "$python" benchmarks/packing.py
for algorithm in memory_reduced itd_bio anil maml; do
  part "$algorithm.txt" "$python" -m memmeta train "configs/paper/cifar_fs_$algorithm.yaml" \
    --data-root "$data" --device cuda --out "$out/$algorithm.pt"
done
