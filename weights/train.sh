#!/usr/bin/env bash
# train.sh OUT PHOTOGRAPHS...: trains every model that ships with the steps that the model cards name, and exports it to
# OUT. SHARE=0.01 takes a hundredth of the steps; the four calibrations, minutes each, stay whole. What was stopped goes
# on when the same command is given again.
set -euo pipefail
out=$1
shift

# run FOLDER MODEL STEPS WEIGHTS OPTION...: WEIGHTS to begin with, or none
run() {
  local folder=$out/$1 model=$2 steps begin=()
  steps=$(awk "BEGIN { print int($3 * ${SHARE:-1} + 0.999) }")
  if [ -e "$folder/checkpoint.pt" ]; then
    begin=(--resume "$folder/checkpoint.pt")
  elif [ "$4" != none ]; then
    begin=(--init "$out/$4")
  fi
  shift 4
  condic-train --model "$model" --preset s "${photographs[@]}" --batch 4 --steps "$steps" --out "$folder" \
    ${begin[@]+"${begin[@]}"} "$@"
}

# ship FOLDER MODEL NAME: calibrates on more crops than runs of few a step do, and exports
ship() {
  condic-train --model "$2" --preset s "${photographs[@]}" --init "$out/$1/$2-s.safetensors" --steps 0 --batch 32 \
    --out "$out/$1-calibrated" --force
  condic-export --model "$2" --preset s --weights "$out/$1-calibrated/$2-s.safetensors" --out "$out/$3.condic"
}

photographs=("${@/#/--data=}")
sgp=dcic-sgp-s.safetensors
run sgp-small dcic-sgp 27078 none --learning-rate 1e-3 --prior-share 0.38 --seed 31
run sgp dcic-sgp 12125 "sgp-small/$sgp" --batch 64 --learning-rate 1.5e-3 --prior-share 0.38 --seed 12
ship sgp dcic-sgp dcic-sgp-s
run sgp-ms-ssim dcic-sgp 1600 "sgp/$sgp" --loss ms-ssim --learning-rate 6e-4 --prior-share 0.38 --seed 92
ship sgp-ms-ssim dcic-sgp dcic-sgp-s-ms-ssim

sr=cic-sr-s.safetensors
run 1 cic-sr 3618 none --stage low-resolution --crop 512 --learning-rate 1e-3 --seed 51
run 2 cic-sr 821 "1/$sr" --stage super-resolution --learning-rate 1e-3 --seed 52
run 3 cic-sr 1196 "2/$sr" --stage conditional --learning-rate 1e-3 --seed 63
run 4 cic-sr 7985 "3/$sr" --stage joint --learning-rate 8e-4 --seed 64
run 5 cic-sr 875 "4/$sr" --stage joint --batch 64 --learning-rate 1.5e-3 --no-compile --seed 101
run 6 cic-sr 1555 "5/$sr" --stage joint --learning-rate 2e-4 --seed 107
ship 6 cic-sr cic-sr-s
run ms-ssim cic-sr 1000 "5/$sr" --stage joint --loss ms-ssim --learning-rate 4e-4 --seed 108
ship ms-ssim cic-sr cic-sr-s-ms-ssim
