"""k-NN segmentation, clustering scores, keypoint matching and object discovery against published implementations."""

import json

import numpy as np
import pytest
import torch
from helpers.recordings import Recording, by_recording

from pe_dense.evaluation.correspondence import match_keypoints, place_keypoints, threshold_scale
from pe_dense.evaluation.knn_segmentation import PatchMemory, knn_labels, upsampled_labels
from pe_dense.evaluation.object_discovery import lost, tokencut
from pe_dense.evaluation.scores import count_pairs, hungarian_miou, many_to_one_miou, mean_iou

SOFT = dict(atol=1e-5, rtol=0)


def maps(golden, name):
    grid = golden.config["grid"]
    return golden[name].transpose(1, 2).unflatten(2, (grid, grid))


@by_recording("knn_segmentation*.npz")
@pytest.mark.parametrize("memory_size", ["full", "bounded"])
def test_golden_knn(path, memory_size):
    golden = Recording(path)
    config, images = golden.config, golden["train/features"]
    room = None if memory_size == "full" else config["memory_size"] // len(images)
    memory = PatchMemory(config["num_classes"], room, ignored_class=0)
    random = list(golden.subset("rand/").values())
    step = 2  # images of a batch in the recording
    for number, start in enumerate(range(0, len(images), step)):
        numbers = random[number].view(step, -1) if room else None
        part = slice(start, start + step)
        memory.add(maps(golden, "train/features")[part], golden["train/labels"][part], numbers)
    features, labels = memory.entries()
    if room is None:
        torch.testing.assert_close(labels, golden["full/memory_labels"], **SOFT)
    else:
        expected = torch.cat([golden["bounded/memory_features"], golden["bounded/memory_labels"]], 1)
        found = torch.cat([features, labels], 1)
        apart = torch.cdist(found.double(), expected.double()).min(dim=1).values
        assert len(found) == len(expected) and apart.max() < 1e-4
    queries = golden["val/features"]
    settings = dict(k=config["neighbours"], temperature=config["beta"])
    soft = knn_labels(queries.flatten(0, 1), features, labels, **settings).unflatten(0, queries.shape[:2])
    torch.testing.assert_close(soft, golden[f"{memory_size}/soft"], **SOFT)
    truth = golden["val/labels"]
    grid = (config["grid"],) * 2
    found = upsampled_labels(soft.transpose(1, 2).unflatten(2, grid), truth.shape[1:])
    assert torch.equal(found, golden[f"{memory_size}/labels"].long())
    counts = count_pairs(found, truth, config["num_classes"], config["num_classes"], [config["ignore_index"]])
    assert hungarian_miou(counts) == pytest.approx(float(golden[f"{memory_size}/miou"]), abs=1e-6)
    if f"{memory_size}/miou_unmatched" in golden:
        assert mean_iou(counts) == pytest.approx(float(golden[f"{memory_size}/miou_unmatched"]), abs=1e-6)


@by_recording("knn_segmentation*.npz")
def test_golden_clusters(path):
    golden = Recording(path)
    config = golden.config
    counts = count_pairs(
        golden["clusters/assignment"],
        golden["val/labels"],
        config["clusters"],
        config["num_classes"],
        [config["ignore_index"]],
    )
    found = dict(
        hungarian=hungarian_miou(counts),
        many_to_one_iou=many_to_one_miou(counts, "iou"),
        many_to_one_precision=many_to_one_miou(counts),
    )
    assert found == pytest.approx({name: float(golden[f"clusters/{name}"]) for name in found}, abs=1e-6)


def keypoints(image, count):
    rows = [image["kps"].get(str(number)) for number in range(count)]
    return torch.tensor([[*row, 1.0] if row else [0.0, 0.0, 0.0] for row in rows])


@by_recording("spair_pck*.npz")
@pytest.mark.parametrize("variant", ["padded", "boxed", "whole"])
def test_golden_pck(path, variant):
    golden = Recording(path)
    side, names = golden.config["side"], golden.config["image_names"]
    arrays = np.load(path)
    images = {image["filename"][:-4]: image for image in json.loads(str(arrays["images"]))}
    count = max(len(image["kps"]) for image in images.values())
    features, errors = golden[f"{variant}/features"], []
    for number, pair in enumerate(json.loads(str(arrays["pairs"]))):
        ends = []
        for end in ("src", "trg"):
            image = images[pair[f"{end}_imname"][:-4]]
            size = (image["image_width"], image["image_height"])
            points = place_keypoints(keypoints(image, count), size, side, variant, pair[f"{end}_bndbox"])
            ends.append((features[names.index(pair[f"{end}_imname"][:-4])], points))
        unit = threshold_scale(pair["trg_bndbox"], size, side, variant)
        (source, source_points), (target, target_points) = ends
        found = match_keypoints(source, target, source_points, target_points, side=side, variant=variant, unit=unit)
        errors.append(found.error)
        if variant == "padded":
            assert unit[0] == pytest.approx(float(golden["padded/thresholds"][number]), abs=1e-4)
            kept = golden["padded/keypoints"][2 * number]
            both = kept[:, 2] > 0
            torch.testing.assert_close(source_points[both], kept[both], atol=1e-4, rtol=0)
            continue
        recorded = golden.subset(f"{variant}/pair{number}/")
        torch.testing.assert_close(source_points.int(), recorded["source"].int())
        torch.testing.assert_close(target_points.int(), recorded["target"].int())
        assert unit[0] / side == pytest.approx(float(recorded["scale"]), abs=1e-6)
        torch.testing.assert_close(found.error, recorded["error"], atol=1e-4, rtol=0)
        assert torch.equal(found.index, recorded["index"])
        torch.testing.assert_close(found.error_nearest, recorded["error_nearest"], atol=1e-4, rtol=0)
        assert torch.equal(found.nearest, recorded["index_nearest"])
    errors = torch.cat(errors)
    if variant == "padded":
        found = [float((errors < alpha).float().mean()) for alpha in (0.1, 0.05, 0.01)]
        assert found == pytest.approx(golden["padded/pck_0.10_0.05_0.01"].tolist(), abs=1e-6)
    else:
        assert 100 * float((errors < 0.1).float().mean()) == pytest.approx(
            float(golden[f"{variant}/recall_0.10"]), abs=1e-4
        )


@by_recording("spair_pck*.npz")
def test_golden_padded_positions(path):
    golden = Recording(path)
    side, names = golden.config["side"], golden.config["image_names"]
    arrays = np.load(path)
    found = []
    for number, pair in enumerate(json.loads(str(arrays["pairs"]))):
        ends = [golden["padded/features"][names.index(pair[f"{end}_imname"][:-4])] for end in ("src", "trg")]
        points = golden["padded/keypoints"][2 * number : 2 * number + 2]
        unit = (float(golden["padded/thresholds"][number]),) * 2
        found.append(match_keypoints(*ends, *points, side=side, variant="padded", unit=unit))
    predicted, target = (torch.cat([getattr(x, name) for x in found]).flip(1) for name in ("predicted", "target"))
    torch.testing.assert_close(predicted, golden["padded/predicted_yx"], atol=1e-4, rtol=0)
    torch.testing.assert_close(target, golden["padded/target_yx"], atol=1e-4, rtol=0)
    torch.testing.assert_close((predicted - target).norm(dim=1), golden["padded/error"], atol=1e-4, rtol=0)


@by_recording("object_discovery*.npz")
def test_golden_object_discovery(path):
    golden = Recording(path)
    for number, case in enumerate(golden.config["cases"]):
        recorded, grid = golden.subset(f"case{number}/"), tuple(case["grid"])
        place = (case["patch_size"], tuple(case["image_size"]))
        cut = tokencut(recorded["features"], grid, tau=case["tau"], eps=case["eps"])
        vector = recorded["tokencut/eigenvector"].numpy()
        sign = 1 if np.abs(cut.scores - vector).max() < np.abs(cut.scores + vector).max() else -1
        assert np.abs(cut.scores - sign * vector).max() < 1e-8
        # Patches with the same neighbors are equal but for rounding, which decides between them in the recording.
        values, seed = np.abs(cut.scores.reshape(-1)), int(recorded["tokencut/seed"])
        assert values[seed] == pytest.approx(values[cut.seed], rel=1e-8) and cut.mask.reshape(-1)[seed]
        assert cut.box(*place).tolist() == recorded["tokencut/box"].tolist()
        components = recorded["tokencut/components"].numpy()
        assert np.array_equal(cut.mask, components == components.reshape(-1)[cut.seed])
        assert np.array_equal(cut.mask, recorded["tokencut/mask"].numpy() > 0)
        grown = lost(recorded["features"], grid, num_patches=case["k_patches"])
        assert grown.seed == int(recorded["lost/seed"])
        assert grown.box(*place).tolist() == recorded["lost/box"].tolist()
        assert np.array_equal(grown.scores.reshape(-1), recorded["lost/degree"].numpy())
