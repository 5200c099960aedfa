"""A GGUF file to a folder in the Hugging Face layout: `python -m agent.engines.gguf FILE FOLDER`.

The weights are dequantised once and saved as bfloat16 safetensors, so that loading takes a second
instead of twenty and adapters, training and quantising all work on ordinary layers.
"""

from __future__ import annotations

import sys
from pathlib import Path

PAD = "<|endoftext|>"


def convert(source: Path, target: Path) -> None:
    """Convert `source` into the new folder `target`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = str(source.parent), source.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    if tokenizer.pad_token == tokenizer.eos_token and PAD in tokenizer.get_vocab():
        # SmolLM2's GGUF says pad = eos; a padded batch would then end where it is padded.
        tokenizer.pad_token = PAD
        model.config.pad_token_id = tokenizer.pad_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(torch.bfloat16).save_pretrained(str(target))
    tokenizer.save_pretrained(str(target))


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
