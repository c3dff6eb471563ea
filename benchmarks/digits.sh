#!/usr/bin/env bash
# Every method on the embedded digits, three seeds: benchmarks/digits.sh [FOLDER [BACKEND …]]
# Finished runs are not repeated. Then: stcli table --checkpoint last FOLDER
set -euo pipefail
out=${1:-runs/digits}
backends=("${@:2}")
[ ${#backends[@]} -gt 0 ] || backends=(torch keras)
methods=(standard at st trades mart collaborative at2 trades2 mart2 gairat gair-rst bat st+awp trades+awp)
for backend in "${backends[@]}"; do
  for method in "${methods[@]}"; do
    [[ $method == *+awp ]] && awp=(--awp 0.005) || awp=()
    stcli train --backend "$backend" --method "${method%+awp}" "${awp[@]}" --threads 1 --seeds 0..2 \
      --out "$out/$backend-${method/+/-}"
  done
done
