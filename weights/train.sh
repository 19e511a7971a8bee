#!/usr/bin/env bash
# train.sh OUT PHOTOGRAPHS...: trains every model that ships with the steps that the model cards name, and exports it to
# OUT. SHARE=0.01 takes a hundredth of the steps. A run that was stopped goes on with condic-train --resume.
set -euo pipefail
out=$1
shift

# run FOLDER MODEL STEPS OPTION...
run() {
  local folder=$out/$1 model=$2 steps
  steps=$(awk "BEGIN { print int($3 * ${SHARE:-1} + 0.999) }")
  shift 3
  condic-train --model "$model" --preset s "${photographs[@]}" --batch 4 --steps "$steps" --out "$folder" "$@"
}

# ship FOLDER MODEL NAME
ship() {
  condic-export --model "$2" --preset s --weights "$out/$1/$2-s.safetensors" --out "$out/$3.condic"
}

photographs=("${@/#/--data=}")
run sgp dcic-sgp 23477 --learning-rate 1e-3 --prior-share 0.38 --seed 31
ship sgp dcic-sgp dcic-sgp-s
run sgp-ms-ssim dcic-sgp 800 --loss ms-ssim --init "$out/sgp/dcic-sgp-s.safetensors" --learning-rate 6e-4 \
  --prior-share 0.38 --seed 81
ship sgp-ms-ssim dcic-sgp dcic-sgp-s-ms-ssim

sr=cic-sr-s.safetensors
run 1 cic-sr 3618 --stage low-resolution --crop 512 --learning-rate 1e-3 --seed 51
run 2 cic-sr 821 --stage super-resolution --init "$out/1/$sr" --learning-rate 1e-3 --seed 52
run 3 cic-sr 1196 --stage conditional --init "$out/2/$sr" --learning-rate 1e-3 --seed 63
run 4 cic-sr 5398 --stage joint --init "$out/3/$sr" --learning-rate 8e-4 --seed 64
ship 4 cic-sr cic-sr-s
run ms-ssim cic-sr 420 --stage joint --loss ms-ssim --init "$out/4/$sr" --learning-rate 4e-4 --seed 75
ship ms-ssim cic-sr cic-sr-s-ms-ssim
