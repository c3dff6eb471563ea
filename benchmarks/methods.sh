#!/usr/bin/env bash
# Every method on real images, ResNet-8, a short schedule: benchmarks/methods.sh DATA [FOLDER [RUN …]]
# DATA is a folder with CIFAR-10 as train-*.parquet and test-*.parquet; RUN is BACKEND-METHOD or BACKEND-METHOD-awp,
# by default all runs of the table. Finished runs are not repeated.
# Then: stcli table --checkpoint last FOLDER
set -euo pipefail
data=$1
out=${2:-runs/methods}
shift $(($# < 2 ? $# : 2))
torch=(torch-{standard,at,trades,mart,collaborative,trades2,gairat,bat,st,st-awp})
runs=("${@:-${torch[@]}}")
[ $# -gt 0 ] || runs+=(keras-{trades,st,st-awp})
for run in "${runs[@]}"; do
  [ -e "$out/$run/result.json" ] && continue
  backend=${run%%-*} method=${run#*-}
  [[ $method == *-awp ]] && awp=(--awp 0.005) || awp=()
  stcli train --dataset "parquet:$data" --model resnet8 --train-size 10000 --validation-size 500 --test-size 1000 \
    --batch-size 64 --learning-rate 0.05 --schedule cosine --epochs 3 --threads 1 \
    --backend "$backend" --method "${method%-awp}" "${awp[@]}" --out "$out/$run"
done
