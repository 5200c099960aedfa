"""A trained reward function as a thing to use: score replies, unroll a dialogue, save, load.

On disk: `reward.json` (settings, scale, encoder) and `reward.safetensors` (linear layers, the
projection of frozen features, a fine-tuned encoder's weights). It reads text and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.bank import Floats
from learning.dialogue import Dialogue, Utterance
from learning.errors import DataError, RegistryError, TrainingError
from learning.features import Projection, vectors
from learning.processes import ALONE, Processes
from learning.scale import Scale

if TYPE_CHECKING:
    from agent.config import Config
    from learning.encoder import Encoder
    from learning.fitting import Fitted
    from learning.trainer import Outcome

REMEMBERED = 20_000
"""Utterances whose vectors are kept in memory between calls of `score`."""


class TextReward:
    """r_θ(s_t, a_t) of the frozen path or the fine-tuned one.

    Args:
        reward_id: as logged.
        settings: `[reward]` it was trained with.
        scale: its units.
        network: the linear layers, or the encoder with them.
        encoder: what reads the text.
        projection: of the frozen features; None for a fine-tuned encoder.
    """

    def __init__(
        self,
        reward_id: str,
        settings: Any,
        scale: Scale,
        network: Any,
        encoder: Encoder,
        projection: Projection | None,
    ) -> None:
        self.id = reward_id
        self.settings = settings
        self.scale = scale
        self.network = network.eval()
        self.encoder = encoder
        self.projection = projection
        self._known: dict[str, Any] = {}

    def score(
        self, histories: Sequence[Sequence[Utterance]], replies: Sequence[str]
    ) -> list[float]:
        """One reward a reply, points of the session's scale (0 to 100; not clipped).

        Args:
            histories: what was said before, oldest first, any number of turns.
            replies: what the agent says next.
        """
        dialogues = [
            [*history, Utterance("agent", reply)]
            for history, reply in zip(histories, replies, strict=True)
        ]
        rewards = self._rewards([(turns, [len(turns) - 1]) for turns in dialogues])
        return [float(r) for r in self.scale.points(rewards)]

    def unroll(self, dialogue: Dialogue) -> Floats:
        """The reward of every scored turn of one dialogue, points, [scored turns].

        Their mean is the predicted rating.
        """
        rewards = self._rewards([(dialogue.turns, list(dialogue.scored))])
        return np.asarray(self.scale.points(rewards, len(dialogue.scored)), np.float64)

    def _rewards(self, dialogues: Sequence[tuple[Sequence[Utterance], list[int]]]) -> Floats:
        """r_θ of the chosen turns of each dialogue, flat."""
        import torch

        from learning.network import Features, Texts, pair_of
        from learning.trainer import rewards_of

        if self.projection is None:
            pairs = [pair_of(turns[:i], turns[i]) for turns, chosen in dialogues for i in chosen]
            return rewards_of(self.network, Texts(self.encoder, pairs, self.settings.max_tokens))
        self._read({turn.text for turns, _ in dialogues for turn in turns})
        rows, numbers = [], []
        for turns, chosen in dialogues:
            e = np.stack([self._known[turn.text] for turn in turns])
            v, x = vectors(turns, e, self.settings.history_decay)
            rows.append(v[chosen])
            numbers.append(x[chosen])
        if not rows:
            return np.empty(0)
        # The training vectors were kept in half precision; the same rounding here.
        half = np.concatenate(rows).astype(np.float16).astype(np.float32)
        features = self.projection(half, np.concatenate(numbers))
        device = next(self.network.parameters()).device
        return rewards_of(self.network, Features(torch.from_numpy(features).to(device)))

    def _read(self, texts: set[str]) -> None:
        new = sorted(text for text in texts if text not in self._known)
        if len(self._known) + len(new) > REMEMBERED:
            self._known.clear()
            new = sorted(texts)
        if new:
            self._known |= dict(zip(new, self.encoder.embed(new), strict=True))

    def save(self, folder: Path) -> None:
        """Write `reward.json` and `reward.safetensors` into an existing folder."""
        import torch
        from safetensors.torch import save_file

        trained = {n for n, p in self.network.named_parameters() if p.requires_grad}
        tensors = {
            f"network.{k}": v.detach().cpu().contiguous().clone()
            for k, v in self.network.state_dict().items()
            if k in trained
        }
        if self.projection is not None:
            for name in ("components", "centre", "mean", "sd"):
                array = np.ascontiguousarray(getattr(self.projection, name), np.float32)
                tensors[f"projection.{name}"] = torch.from_numpy(array)
        save_file(tensors, str(folder / "reward.safetensors"))
        head = {
            "settings": self.settings.model_dump(mode="json"),
            "scale": asdict(self.scale),
            "encoder": self.encoder.name,
        }
        (folder / "reward.json").write_text(json.dumps(head, indent=2) + "\n", encoding="utf-8")


def load(which: str | Path, config: Config) -> TextReward:
    """A reward by its registry id (or a prefix of it), or by its folder.

    Raises:
        RegistryError: unknown, or its files are damaged.
        WeightsError: its encoder is not here.
    """
    folder = Path(which).expanduser()
    if not (folder / "reward.json").is_file():
        from agent.store_engine import data_dir
        from learning.registry import Registry

        registry = Registry.open(data_dir())
        manifest = registry.get(str(which))
        if manifest.kind != "reward":
            raise RegistryError(f"{which} is a {manifest.kind}, not a reward")
        registry.verify(manifest.id)
        return _read(registry.path(manifest.id), manifest.id, config)
    return _read(folder, folder.name, config)


def _read(folder: Path, reward_id: str, config: Config) -> TextReward:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from agent.learning_config import Reward
    from learning.encoder import Encoder
    from learning.network import FineTuned, Head

    try:
        head = json.loads((folder / "reward.json").read_text(encoding="utf-8"))
        tensors = load_file(str(folder / "reward.safetensors"))
        settings = Reward.model_validate(head["settings"]).model_copy(
            update={"device": config.reward.device}
        )
        scale = Scale(**head["scale"])
        encoder = Encoder(head["encoder"], config.models, settings.device)
        projection = None
        network: Any
        if settings.trainable:
            network = FineTuned(encoder, settings, scale)
        else:
            projection = Projection(
                *(
                    tensors[f"projection.{n}"].numpy()
                    for n in ("components", "centre", "mean", "sd")
                )
            )
            if len(projection.mean) != projection.features:
                raise KeyError("it was trained on other features: train it again")
            network = Head(projection.features, settings, scale)
        state = {
            k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")
        }
        wrong = network.load_state_dict(state, strict=False)
        expected = {n for n, p in network.named_parameters() if p.requires_grad}
        if wrong.unexpected_keys or expected - set(state):
            raise KeyError(f"{len(expected - set(state))} tensors are missing")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise RegistryError(f"{folder}: not a reward that can be read: {line}") from None
    network.to(torch.device(settings.device))
    return TextReward(reward_id, settings, scale, network, encoder, projection)


def of(fitted: Fitted, encoder: Encoder, reward_id: str) -> TextReward:
    """What `fitting.fit` made, ready to score text."""
    return TextReward(
        reward_id, fitted.settings, fitted.scale, fitted.head, encoder, fitted.projection
    )


def train(
    training: Sequence[Dialogue],
    validation: Sequence[Dialogue],
    config: Config,
    folder: Path,
    *,
    reward_id: str = "reward",
    cache: Path | None = None,
    on_progress: Callable[[str, float, float], None] = lambda *_: None,
    processes: Processes = ALONE,
) -> tuple[TextReward, Outcome]:
    """Train r_θ of `[reward]` and save it in `folder`, from its checkpoint if there is one.

    Args:
        training: what is fitted.
        validation: what decides when to stop.
        config: `[reward]` and where weights lie.
        folder: an existing folder; also of the checkpoint.
        reward_id: its name.
        cache: for vectors of research data.
        on_progress: told what is done, how much, of how much.
        processes: what shares the work; the first one writes.

    Raises:
        TrainingError: a method that learns nothing (mean, mode without shaping), nothing to fit, or
            a checkpoint of another run.
        DataError: no dialogue to validate on.
    """
    import torch

    from learning.encoder import Encoder
    from learning.fitting import fit
    from learning.turns import turns_of

    settings = config.reward
    if processes.world > 1:
        settings = settings.model_copy(update={"device": processes.device})
    if settings.method in ("mean", "mode") and settings.shaping == "none":
        raise TrainingError(
            f"reward.method = {settings.method!r} has nothing to train", "ircr, rudder or rrd"
        )
    if not training or not validation:
        raise DataError("too few sessions to train on some and stop on others")
    torch.manual_seed(settings.seed)
    encoder = Encoder(settings.encoder, config.models, settings.device)
    if settings.trainable:
        reward, outcome = _fine_tune(
            training, validation, encoder, settings, folder, reward_id, on_progress, processes
        )
    else:
        every = [*training, *validation]
        n = len({turn.text for d in every for turn in d.turns})
        turns = turns_of(
            every, encoder, settings, cache, lambda done: on_progress("reading", done, n), processes
        )
        parts = [turns.pick([d.id for d in part]) for part in (training, validation)]
        fitted = fit(
            parts[0], parts[1], settings, folder,
            lambda done: on_progress("training", done, settings.epochs), processes=processes,
        )  # fmt: skip
        reward, outcome = of(fitted, encoder, reward_id), fitted.outcome
    reward.settings = config.reward  # not which of the devices this process had
    if processes.main:
        reward.save(folder)
    processes.wait()
    return reward, outcome


def _fine_tune(
    training: Sequence[Dialogue],
    validation: Sequence[Dialogue],
    encoder: Encoder,
    settings: Any,
    folder: Path,
    reward_id: str,
    on_progress: Callable[[str, float, float], None],
    processes: Processes,
) -> tuple[TextReward, Outcome]:
    """The encoder's own weights too; every drawn turn is read with its history."""
    from learning.bank import bank_of
    from learning.fitting import project, rudder
    from learning.network import FineTuned, Texts, pair_of
    from learning.trainer import Part, Trainer
    from learning.turns import turns_of

    banks = [bank_of(part, settings.ls_threshold) for part in (training, validation)]
    credit = None
    if settings.method == "rudder":  # its return predictor reads frozen features
        both = [
            turns_of(part, encoder, settings, processes=processes)
            for part in (training, validation)
        ]
        credit = rudder(both[0], both[1], settings, project(both[0], settings))
    parts = [
        Part(
            bank,
            Texts(
                encoder,
                [pair_of(d.turns[:i], d.turns[i]) for d in dialogues for i in d.scored],
                settings.max_tokens,
            ),
            credit if dialogues is training else None,
        )
        for bank, dialogues in zip(banks, (training, validation), strict=True)
    ]
    scale = Scale.fit(banks[0], settings)
    network = FineTuned(encoder, settings, scale).to(settings.device)
    trainer = Trainer(network, settings, scale, parts[0], parts[1], folder, processes)
    outcome = trainer.run(lambda done: on_progress("training", done, settings.epochs))
    return TextReward(reward_id, settings, scale, network, encoder, None), outcome
