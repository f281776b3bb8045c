"""Label propagation pixel by pixel, and with all pairs of patches at once: plain, for comparison."""

import torch


def propagate_loop(queries, keys, labels, *, radius, topk, temperature):
    """(h, w, C), (M, h, w, C), (M, K, h, w) -> (K, h, w), one patch after another."""
    height, width, _ = queries.shape
    soft = torch.zeros_like(labels[0])
    for row in range(height):
        for column in range(width):
            weights, found = [], []
            for frame in range(len(keys)):
                for y in range(height):
                    for x in range(width):
                        if radius and (abs(y - row) > radius or abs(x - column) > radius):
                            continue
                        weights.append(torch.exp(queries[row, column] @ keys[frame, y, x] / temperature))
                        found.append(labels[frame, :, y, x])
            weights = torch.stack(weights)
            least = weights.sort(descending=True).values[: min(topk, len(weights))][-1]
            weights = torch.where(weights >= least, weights, 0.0)
            soft[:, row, column] = (weights / weights.sum()) @ torch.stack(found)
    return soft


def propagate_dense(queries, keys, labels, *, radius, topk, temperature):
    """The same with a matrix of all patches by all patches of the context."""
    height, width, _ = queries.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = rows.flatten().to(queries.device), columns.flatten().to(queries.device)
    affinity = torch.exp(queries.flatten(0, 1) @ keys.flatten(0, 2).T / temperature)  # (h * w, M * h * w)
    if radius:
        near = (rows[:, None] - rows).abs().maximum((columns[:, None] - columns).abs()) <= radius
        affinity = affinity * near.repeat(1, len(keys))
    least = affinity.topk(topk, dim=1).values[:, -1:]
    affinity = torch.where(affinity >= least, affinity, 0.0)
    affinity = affinity / affinity.sum(dim=1, keepdim=True)
    return (labels.transpose(0, 1).flatten(1) @ affinity.T).unflatten(1, (height, width))
