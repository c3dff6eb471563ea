#!/usr/bin/env bash
# Standard, adversarial and squeeze training on the embedded digits: three seeds, both backends.
#   benchmarks/digits.sh [FOLDER]     then: python benchmarks/table.py FOLDER/*
set -euo pipefail
out=${1:-runs/digits}
for backend in torch keras; do
  for method in standard at st; do
    for seed in 0 1 2; do
      stcli train --backend "$backend" --method "$method" --seed "$seed" --out "$out/$backend-$method-$seed"
    done
  done
done
