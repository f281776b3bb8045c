import math

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import SigmoidFocalLoss, SoftmaxFocalLoss, sigmoid_focal_loss, softmax_focal_loss
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from pe_dense.ops.focal_loss import softmax_focal_loss_backward

LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.1, -0.4], [-2.0, 0.7, 0.9], [0.2, 0.2, -3.0]])
TARGETS = torch.tensor([2, 0, 3, 1])  # 3 is the background of three classes
WEIGHTS = torch.tensor([0.5, 2.0, 3.0])


def one_hot(targets: torch.Tensor) -> torch.Tensor:
    return (targets[:, None] == torch.arange(3)).float()


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.5, 0.7), (0.0, 0.5)])
def test_sigmoid_against_torchvision(gamma, alpha):
    expected = torchvision_focal_loss(LOGITS, one_hot(TARGETS), alpha=alpha, gamma=gamma)
    loss = sigmoid_focal_loss(LOGITS, TARGETS, gamma, alpha, None, "none")
    torch.testing.assert_close(loss, expected)


def test_sigmoid_by_hand():
    # p = 1/2 everywhere: alpha / 4 ln 2 at the target, (1 - alpha) / 4 ln 2 elsewhere.
    loss = sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([1]), 2.0, 0.25, None, "none")
    torch.testing.assert_close(loss, torch.tensor([[0.75, 0.25]]) / 4 * math.log(2))


@pytest.mark.parametrize("background", [3, -1])
def test_sigmoid_background_is_negative_for_every_class(background):
    targets = torch.tensor([2, 0, background, 1])
    loss = sigmoid_focal_loss(LOGITS, targets, 2.0, 0.25, None, "none")
    torch.testing.assert_close(loss, sigmoid_focal_loss(LOGITS, TARGETS, 2.0, 0.25, None, "none"))
    p = LOGITS[2].sigmoid()
    torch.testing.assert_close(loss[2], -0.75 * p**2 * (1 - p).log())


def test_sigmoid_weights_by_target():
    plain = sigmoid_focal_loss(LOGITS, TARGETS, 2.0, 0.25, None, "none")
    loss = sigmoid_focal_loss(LOGITS, TARGETS, 2.0, 0.25, WEIGHTS, "none")
    torch.testing.assert_close(loss, plain * torch.tensor([[3.0], [0.5], [1.0], [2.0]]))


@pytest.mark.parametrize("weight", [None, WEIGHTS.double()])
@pytest.mark.parametrize("gamma", [2.0, 0.5, 0.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_sigmoid_gradient(weight, gamma, reduction):
    logits = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logits: sigmoid_focal_loss(logits, TARGETS, gamma, 0.3, weight, reduction), logits
    )


@pytest.mark.parametrize("gamma", [2.0, 0.5, 0.0])
def test_sigmoid_of_certain_predictions(gamma):
    """Wrong by 50: the loss is 50 times alpha or 1 - alpha, with slope of as much; right by 50: nothing."""
    logits = torch.tensor([[-50.0, 50.0, -50.0]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0]), gamma, 0.25, None, "none")
    torch.testing.assert_close(loss, torch.tensor([[12.5, 37.5, 0]]))
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, 0.75, 0]]))


def softmax_reference(logits, targets, gamma, alpha, weight):
    log_p = F.log_softmax(logits, dim=1)
    losses = []
    for row, target in zip(log_p, targets.tolist(), strict=True):
        factor = 0.0 if target < 0 else 1.0 if weight is None else weight[target].item()
        losses.append(-alpha * factor * (1 - row[target].exp()) ** gamma * row[target])
    return torch.stack(losses)


SOFTMAX_TARGETS = torch.tensor([2, 0, -1, 1])


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("gamma", [2.0, 0.5, 0.0])
def test_softmax_against_log_softmax(weight, gamma):
    logits, reference = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    expected = softmax_reference(reference, SOFTMAX_TARGETS, gamma, 0.3, weight)
    assert expected[2] == 0
    loss = softmax_focal_loss(logits, SOFTMAX_TARGETS, gamma, 0.3, weight, "none")
    torch.testing.assert_close(loss, expected.detach())
    softmax_focal_loss(logits, SOFTMAX_TARGETS, gamma, 0.3, weight, "mean").backward()
    expected.mean().backward()
    torch.testing.assert_close(logits.grad, reference.grad)
    assert (logits.grad[2] == 0).all()


def test_softmax_gradient():
    logits = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logits: softmax_focal_loss(logits, SOFTMAX_TARGETS, 1.5, 0.3, WEIGHTS.double(), "sum"), logits
    )


def test_softmax_by_hand():
    # p = 1/4: 0.5 * (3/4)^2 * ln 4, derivative by log p: 0.5 * (-(3/4)^2 - 2 * 3/4 * 1/4 * ln 4).
    loss = softmax_focal_loss(torch.zeros(1, 4), torch.tensor([1]), 2.0, 0.5, None, "none")
    torch.testing.assert_close(loss, torch.tensor([0.5 * 9 / 16 * math.log(4)]))
    buff, grad = torch.zeros(1), torch.zeros(1, 4)
    none = torch.zeros(0)
    softmax_focal_loss_backward(torch.full((1, 4), 0.25), torch.tensor([1]), none, buff, grad, 2.0, 0.5)
    slope = 0.5 * (-9 / 16 - 6 / 16 * math.log(4))
    torch.testing.assert_close(buff, torch.tensor([slope]))
    torch.testing.assert_close(grad, slope * torch.tensor([[-0.25, 0.75, -0.25, -0.25]]))


@pytest.mark.parametrize("gamma", [2.0, 0.5, 0.0])
def test_softmax_of_certain_predictions(gamma):
    logits = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    softmax_focal_loss(logits, torch.tensor([0]), gamma, 0.25, None, "sum").backward()
    assert logits.grad.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("layer", [SigmoidFocalLoss, SoftmaxFocalLoss])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(layer, dtype):
    targets = torch.tensor([2, 0, 0, 1])
    logits = LOGITS.to(dtype).requires_grad_()
    wide = logits.detach().float().requires_grad_()
    loss, expected = (layer(2.0, 0.25)(tensor, targets) for tensor in (logits, wide))
    assert loss.dtype == dtype
    torch.testing.assert_close(loss.float(), expected, rtol=2e-2, atol=1e-3)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(logits.grad.float(), wide.grad, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("loss", [sigmoid_focal_loss, softmax_focal_loss])
def test_no_examples(loss):
    logits = torch.zeros(0, 3, requires_grad=True)
    total = loss(logits, torch.zeros(0, dtype=torch.int64), 2.0, 0.25, None, "sum")
    total.backward()
    assert total == 0 and logits.grad.shape == (0, 3)


@pytest.mark.parametrize(("loss", "first_bad"), [(sigmoid_focal_loss, 4), (softmax_focal_loss, 3)])
def test_rejects_targets_beyond_the_classes(loss, first_bad):
    with pytest.raises(ValueError, match=f"3.*{first_bad}"):
        loss(LOGITS, torch.tensor([0, 1, 2, first_bad]), 2.0, 0.25, None, "none")
