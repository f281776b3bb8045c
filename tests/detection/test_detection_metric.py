"""The generated data of the metric tests cover all cases."""

from collections import Counter

from helpers.metric_data import make_ground_truth, make_predictions


def test_data_has_the_hard_cases():
    content = make_ground_truth(num_images=60, num_categories=40, size=(120, 100), lvis=True)
    samples = make_predictions(content, per_image=300)
    annotations = content["annotations"]
    assert 0 < len({annotation["image_id"] for annotation in annotations}) < 60
    assert 0 < len({annotation["category_id"] for annotation in annotations}) < 40
    assert any(image["not_exhaustive_category_ids"] for image in content["images"])
    assert set(Counter(len(sample["pred_instances"]["labels"]) for sample in samples)) == {0, 300, 450}
    forms = Counter(
        "polygon" if isinstance(mask, list) else type(mask["counts"]).__name__
        for mask in (annotation["segmentation"] for annotation in annotations)
    )
    assert forms.keys() == {"polygon", "str", "list"}
