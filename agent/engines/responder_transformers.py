"""The policy in this process: any causal language model of transformers, with a LoRA adapter.

Each dialogue keeps its attention cache. A new prompt reuses the longest prefix of tokens that the
cache has, so that after the history was read ahead (`prefill`) only the user's last words are new.
Replies of several calls are written together (agent/engines/batching.py).
On two cores, SmolLM2-135M int8: 20 new tokens 45 ms and 23 ms a token, where reading 283 tokens
anew takes 0.21 s (bfloat16 47 ms a token; CTranslate2 int8 37 ms a token and no cache at all).
"""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agent import weights
from agent.config import Config
from agent.engines.batching import Network
from agent.engines.protocols import Message
from agent.engines.sampling import Sampling
from agent.errors import ConfigError, EngineError, WeightsError
from agent.policies import check_adapter

PENALISED_TOKENS = 64
"""The repetition penalty looks back this far."""
LIKELIEST = 512
"""Tokens among which `top_p` is looked for first."""


class TransformersResponder:
    """A causal language model and its tokenizer.

    Args:
        model: folder in the Hugging Face layout.
        name: of the model, as logged.
        adapter: folder of a PEFT LoRA adapter; merged into the base before quantising.
        precision: `int8` (dynamic quantisation of the linear layers, CPU), or a torch dtype.

    Raises:
        WeightsError: the model or the adapter cannot be loaded, or they do not fit together.
    """

    def __init__(
        self,
        model: Path,
        name: str,
        *,
        adapter: Path | None = None,
        precision: str = "int8",
        device: str = "cpu",
        threads: int = 2,
        sampling: Sampling | None = None,
    ) -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        if device == "cpu":
            torch.set_num_threads(threads)
        self.id = f"transformers-{precision}"
        self.policy_id = name
        self.device = device
        self.sampling = sampling or Sampling()
        dtype = torch.float32 if precision == "int8" else getattr(torch, precision)
        try:
            self.tokenizer = _tokenizer(model)
            network = AutoModelForCausalLM.from_pretrained(
                model, dtype=dtype, local_files_only=True
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise WeightsError(
                f"{model}: not a language model that can be loaded: {_line(error)}",
                "geli models verify",
            ) from None
        if adapter is not None:
            network = _merged(network, adapter)
            self.policy_id = f"{name}+{adapter_id(adapter)}"
        network.eval()
        if precision == "int8":
            network = _quantised(network)
        try:
            # Seven bits lose too much when rows share a pass.
            together = precision != "int8" or has_vnni()
            self.shared = Network(network.to(device), device, together)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"responder.device = {device!r} cannot be used: {_line(error)}",
                "on a machine without a GPU: device = 'cpu', precision = 'int8'",
            ) from None
        self.stop_ids = _stop_ids(self.tokenizer, network)

    @property
    def network(self) -> Any:
        """The model itself."""
        return self.shared.model

    @network.setter
    def network(self, model: Any) -> None:
        self.shared.model = model

    def open(self, seed: int | None = None) -> TransformersConversation:
        """A dialogue with an attention cache of its own."""
        return TransformersConversation(self, seed)


class TransformersConversation:
    """One dialogue. Not for two threads at once."""

    def __init__(self, responder: TransformersResponder, seed: int | None) -> None:
        import torch
        from transformers import DynamicCache

        self._r = responder
        self._new_cache = DynamicCache
        self._cache: Any = DynamicCache()
        self._cached: list[int] = []  # the tokens the cache has read
        self._generator = torch.Generator(device="cpu")
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, without a template."""
        return len(self._r.tokenizer.encode(text, add_special_tokens=False))

    def prefill(self, messages: Sequence[Message]) -> None:
        """Read the history, up to where the next user message will come."""
        if messages:
            self._read(self._ids(messages, reply=False))

    def reply(self, messages: Sequence[Message], should_stop: Callable[[], bool]) -> Iterator[str]:
        """Stream the reply's text.

        Raises:
            EngineError: the model failed (out of memory, say).
        """
        try:
            with self._r.shared.replying():
                yield from self._reply(messages, should_stop)
        except RuntimeError as error:
            self._forget()
            raise EngineError(f"the policy failed: {_line(error)}") from error

    def _reply(self, messages: Sequence[Message], should_stop: Callable[[], bool]) -> Iterator[str]:
        prompt = self._ids(messages, reply=True)
        logits = self._read(prompt)
        written: list[int] = []
        said = ""
        for _ in range(self._r.sampling.max_new_tokens):
            if should_stop():
                return
            token = self._draw(logits, prompt, written)
            if token in self._r.stop_ids:
                break
            written.append(token)
            text = self._r.tokenizer.decode(written, skip_special_tokens=True)
            if not text.endswith("\ufffd"):  # half a character: wait for the rest
                piece, said = text[len(said) :], text
                if piece:
                    yield piece
            logits = self._read([*prompt, *written])

    def _ids(self, messages: Sequence[Message], *, reply: bool) -> list[int]:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        text = self._r.tokenizer.apply_chat_template(
            chat, add_generation_prompt=reply, tokenize=False
        )
        return list(self._r.tokenizer.encode(text, add_special_tokens=False))

    def _read(self, ids: list[int]) -> Any:
        """Bring the cache to `ids`; returns the logits after the last token, [vocabulary]."""
        shared = 0
        for have, want in zip(self._cached, ids, strict=False):
            if have != want:
                break
            shared += 1
        shared = min(shared, len(ids) - 1)  # the last token is read for its logits
        if shared < len(self._cached):
            if shared:
                self._cache.crop(shared - len(self._cached))  # negative: that many off the end
                del self._cached[shared:]
            else:
                self._forget()
        try:
            logits = self._r.shared.read(ids[shared:], self._cache)
        except BaseException:
            self._forget()  # it may have read some layers only
            raise
        self._cached = list(ids)
        return logits

    def _forget(self) -> None:
        self._cache, self._cached = self._new_cache(), []

    def _draw(self, logits: Any, prompt: list[int], written: list[int]) -> int:
        import torch

        how = self._r.sampling
        if how.repetition_penalty != 1.0:
            recent = torch.tensor(sorted({*written, *prompt[-PENALISED_TOKENS:]}))
            picked = logits[recent]
            logits[recent] = torch.where(
                picked > 0, picked / how.repetition_penalty, picked * how.repetition_penalty
            )
        if how.temperature == 0:
            return int(logits.argmax())
        whole = torch.softmax(logits / how.temperature, -1)
        # Sorting the whole vocabulary takes 4 ms, and nearly always the first few make up `top_p`.
        probabilities, order = whole.topk(min(LIKELIEST, len(whole)))
        if float(probabilities.sum()) < how.top_p:
            probabilities, order = whole.sort(descending=True)
        before = probabilities.cumsum(-1) - probabilities
        kept = torch.where(before < how.top_p, probabilities, 0.0)
        return int(order[torch.multinomial(kept, 1, generator=self._generator)])


@functools.lru_cache(maxsize=2)
def _tokenizer(model: Path) -> Any:
    """One for all policies on a base: reading it holds Python up for 0.1 to 0.2 s, which calls in
    progress would hear when a policy is promoted."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model, local_files_only=True)


def adapter_id(adapter: Path) -> str:
    """The adapter's name: `id` of its manifest.json, else a digest of its weights."""
    manifest = adapter / "manifest.json"
    if manifest.is_file():
        try:
            return str(json.loads(manifest.read_text(encoding="utf-8"))["id"])
        except (ValueError, KeyError, TypeError):
            raise WeightsError(f"{manifest}: no `id` in it") from None
    content = (adapter / "adapter_model.safetensors").read_bytes()
    return hashlib.sha256(content).hexdigest()[:12]


def _merged(network: Any, adapter: Path) -> Any:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter / name).is_file():
            raise WeightsError(f"{adapter}: no {name} in it", "give a PEFT LoRA adapter directory")
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            merged = PeftModel.from_pretrained(network, str(adapter)).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise WeightsError(
            f"{adapter}: this adapter does not fit the base model: {_line(error)}",
            "train it for this base, or set responder.model to the base it was made for",
        ) from None
    missing = [str(w.message) for w in said if "missing adapter keys" in str(w.message).lower()]
    if missing:
        raise WeightsError(f"{adapter}: made for another base model: {missing[0][:120]}")
    return merged


def has_vnni() -> bool:
    """Whether this processor multiplies bytes without overflow (AVX-512 VNNI or AVX-VNNI)."""
    import torch

    known = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(known()) if known is not None else False


def _quantised(network: Any) -> Any:
    """Linear layers in int8: weights by channel, activations by token.

    torch's dynamic quantisation has one scale for all tokens of a pass, and the first token of
    LLaMA-like models is an outlier by a factor of thousands: the others are rounded to nothing
    while a prompt is read (2 nats of divergence from full precision). So each token is brought to
    a largest value of 1 first, and its scale is multiplied back.

    Processors with VNNI can use all 8 bits of an activation, others 7 (`reduce_range`). Perplexity
    of four texts: float32 16.0; 8 bits 16.1 alone and 16.1 four in a pass; 7 bits 16.7 and 17.6.
    """
    import torch

    seven_bits = not has_vnni()

    class ByToken(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, linear: Any) -> None:
            super().__init__()
            self.linear, self.bias = linear, linear.bias()
            if self.bias is not None:
                linear.set_weight_bias(linear.weight(), None)

        def forward(self, x: Any) -> Any:
            scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-9)
            packed = self.linear._packed_params._packed_params
            out = torch.ops.quantized.linear_dynamic(x / scale, packed, seven_bits) * scale
            return out if self.bias is None else out + self.bias

    by_channel = torch.ao.quantization.per_channel_dynamic_qconfig
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torchao, which is no faster here
        network = torch.ao.quantization.quantize_dynamic(
            network, {torch.nn.Linear: by_channel}, dtype=torch.qint8
        )
    layers = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear)
    ]
    for name, module in layers:
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, ByToken(module))
    return network


def _stop_ids(tokenizer: Any, network: Any) -> set[int]:
    ends = network.generation_config.eos_token_id
    ids = set(ends if isinstance(ends, list) else [ends])
    for token in ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>", "<|im_start|>"):
        index = tokenizer.convert_tokens_to_ids(token)
        if index is not None and index != tokenizer.unk_token_id:
            ids.add(index)
    return {index for index in ids if index is not None}


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def open_transformers(config: Config) -> TransformersResponder:
    """The policy of `responder.engine = "transformers"`.

    Raises:
        ConfigError: int8 on another device than the CPU.
        PolicyError: the adapter is damaged, or was trained for another base.
        WeightsError: the model or the adapter cannot be loaded.
    """
    settings = config.responder
    if settings.adapter is not None:
        check_adapter(settings.adapter, settings.model)
    if settings.precision == "int8" and settings.device != "cpu":
        raise ConfigError(
            f"responder.precision = 'int8' runs on the CPU only, not on {settings.device!r}",
            "set responder.precision = 'bfloat16'",
        )
    return TransformersResponder(
        weights.ensure(settings.model, config.models),
        settings.model,
        adapter=settings.adapter,
        precision=settings.precision,
        device=settings.device,
        threads=settings.threads,
        sampling=Sampling.of(settings),
    )
