#!/usr/bin/env bash
# Standard, adversarial and squeeze training on real images, and squeeze training's divergences:
#   benchmarks/cifar10.sh DATA [FOLDER]     then: stcli table FOLDER
# DATA is a folder with CIFAR-10 as train-*.parquet and test-*.parquet.
set -euo pipefail
data=$1
out=${2:-runs/cifar10}
"$(dirname "$0")/methods.sh" "$data" "$out" torch-standard torch-at torch-st keras-st

# The divergences, and the targets of the symmetric KL, on a smaller budget.
small=(--dataset "parquet:$data" --model resnet8 --validation-size 500 --test-size 1000 --batch-size 64
  --learning-rate 0.05 --schedule cosine --epochs 3 --threads 1 --train-size 3000 --backend torch --method st)
stcli train "${small[@]}" --beta 6 --out "$out/small-symmetric-kl"
stcli train "${small[@]}" --beta 6 --no-stop-gradient-targets --out "$out/small-symmetric-kl-full-gradient"
stcli train "${small[@]}" --beta 12 --divergence js --out "$out/small-js"
stcli train "${small[@]}" --beta 4 --divergence squared_l2 --out "$out/small-squared-l2"
