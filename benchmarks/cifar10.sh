#!/usr/bin/env bash
# A short run of each method on real images, ResNet-8: benchmarks/cifar10.sh DATA [FOLDER]
# DATA is a folder with CIFAR-10 as train-*.parquet and test-*.parquet. Then: python benchmarks/table.py FOLDER/*
set -euo pipefail
data=$1
out=${2:-runs/cifar10}
common=(--dataset "parquet:$data" --model resnet8 --validation-size 500 --test-size 1000 --batch-size 64
  --learning-rate 0.05 --schedule cosine --epochs 3 --threads 1)

stcli train "${common[@]}" --train-size 10000 --backend torch --method standard --out "$out/torch-standard"
stcli train "${common[@]}" --train-size 10000 --backend torch --method at --out "$out/torch-at"
stcli train "${common[@]}" --train-size 10000 --backend torch --method st --out "$out/torch-st"
stcli train "${common[@]}" --train-size 10000 --backend keras --method st --out "$out/keras-st"

# The divergences, and the targets of the symmetric KL, on a smaller budget.
small=("${common[@]}" --train-size 3000 --backend torch --method st)
stcli train "${small[@]}" --beta 6 --out "$out/small-symmetric-kl"
stcli train "${small[@]}" --beta 6 --no-stop-gradient-targets --out "$out/small-symmetric-kl-full-gradient"
stcli train "${small[@]}" --beta 12 --divergence js --out "$out/small-js"
stcli train "${small[@]}" --beta 4 --divergence squared_l2 --out "$out/small-squared-l2"
