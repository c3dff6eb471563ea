#!/usr/bin/env bash
# The four networks of the paper's figures, small, on real images: benchmarks/figures.sh DATA [FOLDER]
# DATA is a folder with CIFAR-10 as train-*.parquet and test-*.parquet. A killed run resumes.
set -euo pipefail
data=$1
out=${2:-runs/figures}
for method in standard trades st at; do
  run="$out/$method"
  [ -e "$run/result.json" ] && continue
  if [ -e "$run/state" ]; then
    stcli train --resume "$run"
  else
    stcli train --dataset "parquet:$data" --model resnet8 --train-size 10000 --validation-size 500 --test-size 1000 \
      --batch-size 64 --learning-rate 0.05 --schedule cosine --epochs 8 --threads 1 --backend torch \
      --method "$method" --out "$run"
  fi
done
