"""The loop that all predictions share."""

from types import SimpleNamespace

import pytest

from pe_dense.engine.inferencer import predict_batches
from pe_dense.utils.errors import InputError


def test_batches():
    """All images in order; those of a batch are requested when the results of the one before have been used."""
    events = []

    def prepared():
        for number in range(5):
            events.append(f"prepare {number}")
            yield f"image {number}", dict(number=number)

    def predict(batch):
        events.append(f"predict {[data['number'] for data in batch]}")
        return [10 * data["number"] for data in batch]

    predicted = predict_batches(SimpleNamespace(predict=predict), prepared(), 2)
    assert [next(predicted), next(predicted)] == [("image 0", 0), ("image 1", 10)]
    assert events == ["prepare 0", "prepare 1", "predict [0, 1]"]
    assert list(predicted) == [("image 2", 20), ("image 3", 30), ("image 4", 40)]
    assert events[-1] == "predict [4]"
    with pytest.raises(InputError, match="batch_size is 0, must be at least 1"):
        next(predict_batches(SimpleNamespace(predict=predict), prepared(), 0))
