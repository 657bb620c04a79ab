#!/bin/sh
# Does patchword compute on this GPU what it computes on the CPU, and how fast is it? In under eight minutes on a fresh machine:
#
#     benches/gpu.sh PATCHWORD [TESTS]
#
# PATCHWORD is the program (with features wgpu, autotune and fusion, as they are by default), TESTS the program of its tests
# (`cargo test --release --no-run --test it` prints where it is): carried along, nothing is compiled here. Needs datasets/photos and
# configs of the clone; a Python with torch, if there is one, for the rates of PyTorch beside ours.
#
#     SMALL=1     few and small: to see on software Vulkan that the script itself works (SECONDS_EACH=600 where it is slow)
#     DEVICE=wgpu:1     another GPU, as `patchword devices` counts
#
# Prints a line for each check and fails at the end if one differs; no check stops the next.
set -u
cd "$(dirname "$0")/.." || exit 2
[ $# -ge 1 ] || { sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2; }
program=$(command -v "$1") || { echo "no program $1" >&2; exit 2; }
tests=${2:-}
device=${DEVICE:-wgpu}
small=${SMALL:-}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$work}"
failed=
# No step holds up the next: on a GPU the longest takes a minute, on software Vulkan each new shape takes seconds.
run() { timeout "${SECONDS_EACH:-150}" "$program" "$@"; }
differs() { failed=1; echo "DIFFERS: $1"; }

grep -m1 'model name' /proc/cpuinfo 2>/dev/null | sed 's/.*: /CPU: /'
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | sed 's/^/GPU: /'
"$program" devices

# 1. Forward, gradients, a training step, cached decoding and f16, tensor by tensor.
if [ -n "$tests" ]; then
    if PATCHWORD_TEST_WGPU=1 timeout "${SECONDS_OF_TESTS:-240}" "$tests" wgpu:: --test-threads=1 >"$work/tests" 2>&1; then
        grep '^test result' "$work/tests"
    else
        grep -E '^test .*(FAILED|ok)|panicked|test result' "$work/tests"
        differs "tests of wgpu against flex (the whole: $(cp "$work/tests" /tmp/patchword-gpu-tests.log && echo /tmp/patchword-gpu-tests.log))"
    fi
else
    echo "no program of tests: forward, gradients and f16 are not compared tensor by tensor"
fi

# 2. The captioner that ships: the same captions, greedy and by beams, and in f16.
photos=datasets/photos beams_tried='1 3' size=
[ -n "$small" ] && photos=datasets/photos/cat.jpg beams_tried=1 size="--image-size 64 --max-new-tokens 3"
words() { run caption "$photos" --quiet $size "$@" 2>"$work/error" || cat "$work/error" >&2; }
for beams in $beams_tried; do
    words --device flex --num-beams "$beams" >"$work/flex"
    words --device "$device" --num-beams "$beams" >"$work/gpu"
    words --device "$device" --num-beams "$beams" --dtype f16 >"$work/half"
    if [ ! -s "$work/flex" ]; then differs "flex made no captions"; continue; fi
    if cmp -s "$work/flex" "$work/gpu"; then
        echo "captions, $beams beams: equal ($(wc -l <"$work/flex") lines)"
    else
        differs "captions, $beams beams"; diff "$work/flex" "$work/gpu"
    fi
    # Halves may choose another word where two are as likely: said, not failed.
    echo "captions in f16, $beams beams: $(diff "$work/flex" "$work/half" | grep -c '^>') differ of $(wc -l <"$work/flex")"
done

# 3. Rates.
images=64 steps=20
[ -n "$small" ] && images=1 steps=1
field() { sed -n "s/.*\"$1\": *\([0-9.eE+-]*\).*/\1/p" "$2" | head -1; }
for batch in 1 16 64; do
    [ "$batch" -le "$images" ] || continue
    run bench caption --model flickr8k --device "$device" --images "$images" --batch-size "$batch" --num-beams 3 --json \
        >"$work/json" 2>"$work/error" || { cat "$work/error" >&2; differs "bench caption, batch $batch"; continue; }
    echo "captions, 3 beams, batch $batch: $(field images_per_second "$work/json") images/s"
done
set -- --steps "$steps" --warmup 1
[ -n "$small" ] && set -- "$@" --set model.encoder.num_layers=1 --set model.decoder.num_layers=1 --set train.batch_size=1 --set image.height=32 --set image.width=32
if run bench train --device "$device" --json "$@" >"$work/json" 2>"$work/error"; then
    echo "training step of configs/bench.toml: $(field median "$work/json") s"
else
    cat "$work/error" >&2; differs "bench train"
fi
python=$(command -v python3 || command -v python)
if [ -n "$python" ] && "$python" -c 'import torch' 2>/dev/null; then
    "$python" benches/pytorch_step.py ${small:+--small}
else
    echo "no PyTorch here to compare with"
fi
[ -z "$failed" ] || { echo "something differs; see above" >&2; exit 1; }
