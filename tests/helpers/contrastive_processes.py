"""One of two processes: the loss and the gradients of half of a batch. Arguments: folder for the results."""

import sys
from pathlib import Path

import torch
from mmengine.model import BaseDataPreprocessor, MMDistributedDataParallel

from helpers.tiny_clip import TEXT, VISION
from pe_dense.language.contrastive import ContrastiveCLIP

LOSSES = ("softmax", "sigmoid")


def build(loss, **options):
    torch.manual_seed(0)
    # The data preprocessor is given as a module: the registry would import all packages, in each process.
    options = dict(data_preprocessor=BaseDataPreprocessor()) | options
    return ContrastiveCLIP(dict(type="pe_dense.PETower", arch=dict(VISION)), dict(TEXT), loss=loss, **options)


def batch(rows=slice(None)):
    """Six pairs of images and texts."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 3, 32, 32, generator=generator)
    text = torch.randint(1, 49406, (6, 16), generator=generator)
    text[:, 0], text[:, 9] = 49406, 49407
    return dict(images=images[rows], text=text[rows])


def loss_and_gradients(model, data):
    losses = model(**data, mode="loss")
    losses["loss_contrastive"].backward()
    gradients = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
    return dict(loss=losses["loss_contrastive"].detach(), accuracy=losses["accuracy"], gradients=gradients)


def main():
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    results = {}
    for loss in LOSSES:
        model = MMDistributedDataParallel(build(loss), device_ids=None)
        results[loss] = loss_and_gradients(model, batch(slice(3 * rank, 3 * rank + 3)))
    torch.save(results, Path(sys.argv[1]) / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
