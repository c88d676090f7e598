#!/usr/bin/env bash
# Convert every model of a folder for several GPUs, on a machine without one, with TensorRT-RTX.
#
#   convert_all.sh MODELS OUT [flags of onnx2trt.py for all models]
#
#   MODELS/name.onnx     a model
#   MODELS/name.flags    flags for this model, if it needs any (shapes, --test-image, --max-accuracy-drop 0.5, ...); paths from MODELS
#   OUT/ARCH/name.engine the engine, with its name.engine.json; name.json is the result even where there is no engine
#
# Environment: ARCHS (default: sm_89 sm_120), PYTHON (default: python3).
# What has not changed since the last time is not built again (--skip-unchanged).
# Exit code: 0 where every engine was made and agrees with its model, else the code of the first failure. Models at fault (2 a shape
# or another flag that it lacks, 3 the file, 5 calibration data, 6 the build, 7 accuracy) do not keep the others from being converted;
# anything else (machine, disk, Ctrl-C) would fail for all of them and ends it at once, as do flags that are wrong for any model.
set -uo pipefail

if [ $# -lt 2 ]; then sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2; fi
models=$(cd "$1" && pwd) || exit 2
mkdir -p "$2" && out=$(cd "$2" && pwd) || exit 8
shift 2
tool=$(cd "$(dirname "$0")/../.." && pwd)/onnx2trt.py
python=${PYTHON:-python3}
summary=${GITHUB_STEP_SUMMARY:-/dev/null}
report=""
if "$python" -c 'import jinja2, matplotlib' 2> /dev/null; then report=yes; fi

declare -A words=([0]="made" [2]="flags" [3]="model" [5]="calibration data" [6]="build" [7]="accuracy")
first=0
shopt -s nullglob
found=("$models"/*.onnx)
if [ ${#found[@]} -eq 0 ]; then echo "no .onnx in $models" >&2; exit 3; fi
printf '| model | GPU | result | code |\n| --- | --- | --- | --- |\n' >> "$summary"
for model in "${found[@]}"; do
  name=$(basename "$model" .onnx)
  flags=()
  if [ -f "$models/$name.flags" ]; then read -r -d '' -a flags < "$models/$name.flags" || true; fi
  for arch in ${ARCHS:-sm_89 sm_120}; do
    target=$out/$arch/$name
    mkdir -p "$out/$arch" || exit 8
    echo "=== $name for $arch"
    (cd "$models" && exec "$python" "$tool" --backend tensorrt-rtx --gpu-arch "$arch" --onnx "$model" --output "$target.engine" \
      --json "$target.json" --skip-unchanged ${report:+--report "$target.html"} "$@" ${flags[@]+"${flags[@]}"})
    code=$?
    echo "| $name | $arch | ${words[$code]:-stopped} | $code |" >> "$summary"
    if [ $code -ne 0 ] && [ $first -eq 0 ]; then first=$code; fi
    case $code in
      0 | 3 | 5 | 6 | 7) ;;
      2) grep -q '"model": null' "$target.json" && exit 2 ;;  # wrong whatever the model is; else it is a shape that this one lacks
      *) exit $code ;;
    esac
  done
done
exit $first
