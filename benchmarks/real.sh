#!/usr/bin/env bash
# Joint learning on real questions: what docs/results/real has. Killed at any time, the same command goes on.
#
#   benchmarks/real.sh DATA OUT        # DATA: musique_train100, 2wiki_train500, hotpot_train100
#   GPU=1 benchmarks/real.sh DATA OUT  # ten times the runs, about 15 minutes on one GPU
#   ITERATIONS=2 SEEDS=1 benchmarks/real.sh DATA OUT   # a proof that it works
set -euo pipefail
data=$1 out=$2
jade=${JADE:-jade}
questions=8
[ -n "${GPU:-}" ] && questions=80
"$jade" models add smollm2
"$jade" models make "$data" --out "$out"
for preset in vanilla-rag mmoa-rag jade; do
  rows=$out/rows/$preset.jsonl
  [ -e "$rows" ] || "$jade" eval "$out/data/test" --backbone "$out/taught" --preset "$preset" --out "$rows"
done
"$jade" compare --suite real --backbone "$out/taught" --train "$out/data/train" --dev "$out/data/dev" \
  --test "$out/data/test" --replay "$out/demonstrations.jsonl" --seeds "${SEEDS:-3}" \
  --iterations "${ITERATIONS:-10}" --questions "$questions" --out "$out/compared"
