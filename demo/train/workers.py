"""Several processes that train one model, each on its own batch (torchrun starts them)."""
import os
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Workers:
    rank: int = 0
    count: int = 1

    def share(self, gradients: list) -> None:
        """Gives every worker the mean of their gradients."""
        if self.count == 1:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        torch.distributed.all_reduce(flat)
        for g, mean in zip(gradients, (flat / self.count).split([g.numel() for g in gradients])):
            g.copy_(mean.view_as(g))

    def one_says(self, yes: bool) -> bool:
        """Whether any of them says yes; all have to ask."""
        if self.count == 1:
            return yes
        said = torch.tensor(float(yes))
        torch.distributed.all_reduce(said)
        return bool(said)

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            torch.distributed.barrier()


ALONE = Workers()


def join_workers() -> Workers:
    workers = Workers(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if workers.count > 1:
        torch.distributed.init_process_group("gloo")
    return workers
