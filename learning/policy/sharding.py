"""The frozen base in shards (FSDP2): each device holds its part of every block.

A block is whole only while it computes. This is for a base that one device cannot hold; where it
fits, sharing the batch alone (DDP) is faster, since nothing is sent for each token written.

Only what is frozen is sharded. The adapter and the value head are 0.2 % of a 7B model's weights:
every process holds them whole, so that gradients, checkpoints and adapters are those of any run.
"""

from __future__ import annotations

import atexit
import os

import torch

from learning.errors import TrainingError
from learning.policy.model import PolicyModel
from learning.processes import Processes


def wanted() -> bool:
    """Whether the launcher's configuration says FSDP (`accelerate launch` tells by environment)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def check(batch: int, four_bit: bool, processes: Processes) -> None:
    """Refuse what cannot run in shards.

    Raises:
        TrainingError: a batch that cannot be dealt out evenly, or a base in 4 bits.
    """
    if batch % processes.world:
        raise TrainingError(
            f"policy.batch = {batch} is no multiple of {processes.world} processes, as FSDP needs",
            "another policy.batch, or a DDP configuration",
        )
    if four_bit:
        raise TrainingError(
            "policy.four_bit and FSDP do not go together", "four_bit with a DDP configuration"
        )


def shard(model: PolicyModel, processes: Processes) -> None:
    """Share a model's blocks out; from then on the processes pass in lockstep.

    Args:
        model: on the CPU; moved block by block, so no device ever holds it whole.
        processes: those that share it.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    device = torch.device(processes.device)
    mesh = init_device_mesh(device.type, (processes.world,))
    # Torch's caches keep the mesh until the end; the group must not be kept (processes._leave).
    atexit.register(mesh._pg_registry.clear)
    keep = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("false", "no_shard")
    offload = os.environ.get("FSDP_OFFLOAD_PARAMS", "").lower() == "true"
    for block in model.trunk.layers:
        fully_shard(
            block,
            mesh=mesh,
            reshard_after_forward=not keep,
            offload_policy=CPUOffloadPolicy() if offload else OffloadPolicy(),
            ignored_params=set(model.adapter),
        )
    for module in (*model.trunk.children(), model.network.get_base_model().lm_head):
        if module is not model.trunk.layers:
            module.to(device)
    for p in model.adapter:
        p.data = p.data.to(device)
    model.head.to(device)
    model.device, model.sharded = device, True
    processes.lockstep = True
