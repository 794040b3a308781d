#!/usr/bin/env bash
# Run all measurements that need a GPU, for docs/performance.md and docs/results.md:
#     bash benchmarks/gpu.sh [data root] [output folder]
# Takes about half an hour on one GPU. Measurements with existing results are skipped. The training
# runs need the data of CIFAR-FS; without them they fail, and the rest still runs.
set -uo pipefail
cd "$(dirname "$0")/.."
data=${1:-data}
out=${2:-benchmarks/results}
python=${PYTHON:-python}
mkdir -p "$out"

measurement() {
  local result=$out/$1
  shift
  [ -s "$result" ] && return
  echo "$* > $result"
  "$@" > "$result.part" && mv "$result.part" "$result"
}

step_time() { "$python" benchmarks/step_time.py --json --device cuda "$@"; }

measurement step_84.json step_time --image-size 84 --filters 32 --task-batch 4 --task-batch 32 \
  --inner-steps 1 --inner-steps 20 --cg-steps 1 --cg-steps 20
measurement step_32.json step_time --filters 64 --queries 5 --task-batch 4 --task-batch 32 \
  --inner-steps 1 --inner-steps 20 --cg-steps 1 --cg-steps 20
measurement chunk_84.json step_time --image-size 84 --filters 32 --task-batch 32 \
  --chunk 0 --chunk 800 --chunk 100 --precision float32 --precision bfloat16
measurement peers.txt "$python" benchmarks/peers.py --task-batch 32
measurement memory.txt "$python" benchmarks/memory_vs_k.py --device cuda --out "$out"
measurement packing.txt "$python" benchmarks/packing.py
for algorithm in memory_reduced itd_bio anil maml; do
  measurement "$algorithm.txt" "$python" -m memmeta train "configs/paper/cifar_fs_$algorithm.yaml" \
    --data-root "$data" --device cuda --out "$out/$algorithm.pt"
done
