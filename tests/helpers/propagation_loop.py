"""Reference implementations of label propagation: patch by patch, and with all pairs of patches."""

import torch


def propagate_loop(queries, keys, labels, *, radius, topk, temperature):
    """(h, w, C), (M, h, w, C), (M, K, h, w) -> (K, h, w), one patch after another."""
    height, width, channels = queries.shape
    soft = torch.zeros_like(labels[0])
    for row in range(height):
        for column in range(width):
            rows = slice(max(row - radius, 0), row + radius + 1) if radius else slice(None)
            columns = slice(max(column - radius, 0), column + radius + 1) if radius else slice(None)
            weights = torch.exp(keys[:, rows, columns].reshape(-1, channels) @ queries[row, column] / temperature)
            least = weights.topk(min(topk, len(weights))).values[-1]
            weights = torch.where(weights >= least, weights, 0.0)
            found = labels[:, :, rows, columns].transpose(0, 1).flatten(1)
            soft[:, row, column] = found @ (weights / weights.sum())
    return soft


def propagate_dense(queries, keys, labels, *, radius, topk, temperature):
    """Same as above with a matrix of all patches by all context patches."""
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
