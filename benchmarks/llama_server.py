"""A llama.cpp server (xllamacpp) of one model, one thread and 32 slots, until it is stopped.

python benchmarks/llama_server.py MODEL.gguf PORT
"""

from __future__ import annotations

import sys
import threading

import xllamacpp as llama

SLOTS, TOKENS = 32, 1024

params = llama.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[2])
params.n_parallel = SLOTS
params.n_ctx = SLOTS * TOKENS
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = llama.Server(params)
print(server.listening_address, flush=True)
threading.Event().wait()
