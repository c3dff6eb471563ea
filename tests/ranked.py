"""`stcli` as torchrun starts it in `test_ranks`, with a look at each rank's weights or with a rank that fails."""

import os
import signal
import sys
import time

import numpy as np
import torch.distributed

from stcore.cli import ranks as cli_ranks
from stcore.cli.main import main
from stcore.errors import DataError
from stcore.training.trainer import Trainer

RANK = os.environ["RANK"]


def watched(run):
    def then_dump(trainer):
        run(trainer)
        weights = {name: a for name, a in trainer.learner.snapshot().items() if name.startswith("model/")}
        np.savez(os.path.join(os.environ["DUMPS"], f"rank{RANK}.npz"), **weights)

    return then_dump


def failing(drawn):
    def fail(trainer, epoch, batch):
        if batch.positions[0] > 100 and RANK == "1":
            if os.environ["FAILS"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("rank 1 cannot read this")
        return drawn(trainer, epoch, batch)

    return fail


def slow(speaks):
    """The report of an error, so late that the launcher has asked this rank to end."""

    def later():
        time.sleep(1)
        return speaks()

    return later


def counted(reduce):
    def count(tensor, *args):
        messages.append(tensor.numel())
        return reduce(tensor, *args)

    return count


messages: list[int] = []
if "COUNTS" in os.environ and RANK == "0":
    torch.distributed.all_reduce = counted(torch.distributed.all_reduce)
if "DUMPS" in os.environ:
    Trainer.run = watched(Trainer.run)
if "FAILS" in os.environ:
    cli_ranks.speaks = slow(cli_ranks.speaks)
    Trainer._drawn = failing(Trainer._drawn)
code = main(sys.argv[1:])
if messages:
    np.save(os.environ["COUNTS"], messages)
sys.exit(code)
