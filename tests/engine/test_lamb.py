"""LAMB by its registered name."""

import torch
from mmengine.optim import build_optim_wrapper

import pe_dense  # noqa: F401
from pe_dense.registry import OPTIMIZERS


def test_a_config_gets_timms_lamb():
    from timm.optim import Lamb

    model = torch.nn.Linear(3, 2)
    twin = torch.nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())
    optimizer = dict(type="pe_dense.Lamb", lr=0.1, betas=(0.9, 0.95), weight_decay=0.05, max_grad_norm=1.0)
    wrapper = build_optim_wrapper(model, dict(type="OptimWrapper", optimizer=optimizer))
    assert OPTIMIZERS.get("pe_dense.Lamb") is not None and isinstance(wrapper.optimizer, Lamb)
    other = Lamb(twin.parameters(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.05, max_grad_norm=1.0)
    for _ in range(3):
        wrapper.update_params(model(torch.ones(4, 3)).square().mean())
        other.zero_grad()
        twin(torch.ones(4, 3)).square().mean().backward()
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
