"""A GGUF file with its tensors in float32 or float16, from a quantised one: the same weights for llama.cpp as for us.

python benchmarks/plain_gguf.py IN.gguf OUT.gguf f32|f16
"""

from __future__ import annotations

import sys

import gguf
import numpy as np
from gguf.quants import dequantize

TYPES = {
    "f32": (np.float32, gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (np.float16, gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
}
SAID_BY_THE_WRITER = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture"}


def main(source: str, target: str, kind: str) -> None:
    dtype, stored, named = TYPES[kind]
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if name in SAID_BY_THE_WRITER:
            continue
        value = int(named) if name == "general.file_type" else field.contents()
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        small = weights.ndim == 1  # norms stay in float32, as in files that llama.cpp makes
        kept = gguf.GGMLQuantizationType.F32 if small else stored
        writer.add_tensor(tensor.name, weights.astype(np.float32 if small else dtype), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
