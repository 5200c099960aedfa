"""r_θ as a network: linear layers on a text encoder, frozen (features made once) or fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from learning.dialogue import Utterance

if TYPE_CHECKING:
    from agent.learning_config import Reward
    from learning.encoder import Encoder
    from learning.scale import Scale


class Inputs(Protocol):
    """Turns by index: what the network is given for a batch of them."""

    def __len__(self) -> int: ...

    def batch(self, turns: Tensor) -> Any:
        """Network input of the turns, [drawn]."""
        ...


class Features:
    """Features made once by a frozen encoder, [turns, features]."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, turns: Tensor) -> Tensor:
        """Rows, [drawn, features]."""
        return self.x[turns]


class Texts:
    """History and utterance as the tokens of a pair, for a fine-tuned encoder."""

    def __init__(self, encoder: Encoder, pairs: Sequence[tuple[str, str]], max_tokens: int) -> None:
        self.tokenizer = encoder.tokenizer
        self.pairs = list(pairs)
        self.max_tokens = min(max_tokens, encoder.longest)
        self.device = encoder.device

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, turns: Tensor) -> Any:
        """`input_ids` and `attention_mask` [drawn, tokens]; the oldest history is cut first."""
        chosen = [self.pairs[int(i)] for i in turns]
        self.tokenizer.truncation_side = "left"
        return self.tokenizer(
            [history for history, _ in chosen],
            [self._short(text) for _, text in chosen],
            truncation="only_first",
            max_length=self.max_tokens,
            padding=True,
            return_tensors="pt",
        ).to(self.device)

    def _short(self, text: str) -> str:
        """An utterance longer than half the room loses its end, so that history has the rest."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        half = self.max_tokens // 2
        return text if len(ids) <= half else str(self.tokenizer.decode(ids[: half - 4]))


def pair_of(history: Sequence[Utterance], utterance: Utterance) -> tuple[str, str]:
    """History and utterance as the two texts of a pair, who spoke in front of each turn."""
    said = "\n".join(f"{turn.speaker}: {turn.text}" for turn in history)
    return said, f"{utterance.speaker}: {utterance.text}"


class Head(nn.Module):  # type: ignore[misc]
    """Linear layers: [n, features] to r_θ [n], in the units of `Scale`."""

    def __init__(self, features: int, settings: Reward, scale: Scale) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, settings.hidden),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.hidden, 1),
        )
        self.offset, self.gain = scale.offset, scale.gain

    def forward(self, x: Tensor) -> Tensor:
        return self.offset + self.gain * self.layers(x).squeeze(-1)


class FineTuned(nn.Module):  # type: ignore[misc]
    """An encoder whose weights are trained, and the linear layers on its pooled output."""

    def __init__(self, encoder: Encoder, settings: Reward, scale: Scale) -> None:
        super().__init__()
        self.encoder = encoder
        self.network = encoder.network
        self.head = Head(encoder.size, settings, scale)
        self.precision = settings.precision
        self.device = encoder.device

    def forward(self, batch: Any) -> Tensor:
        mixed = self.precision != "float32"
        kind = getattr(torch, self.precision) if mixed else torch.bfloat16
        with torch.autocast(self.device.split(":")[0], dtype=kind, enabled=mixed):
            pooled = self.encoder.pooled(batch)
        return self.head(pooled.float())
