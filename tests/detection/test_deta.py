"""Parts and options of DETA, and edge cases of its input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torchvision.transforms.functional import resize as torchvision_resize

from pe_dense.detection.deta import DETAAssigner
from pe_dense.detection.deta.assigner import choose_proposals
from pe_dense.detection.deta.transforms import DETAJitter, DETAResize, DETAView, detr_size
from pe_dense.engine.inferencer import drop_pretrained
from pe_dense.necks import DETAPyramid

CONFIG = Path(__file__).parents[2] / "configs" / "shapes_deta_pe_tiny.py"


def tiny():
    """Return the config of a tiny DETA without pretrained weights."""
    config = Config.fromfile(CONFIG).model
    drop_pretrained(config)
    return config


def build(**changes):
    """The tiny model, smaller still, with random weights."""
    config = tiny()
    config.merge(dict(embed_dims=64, encoder_layers=1, decoder_layers=2, num_queries=20, feedforward_channels=64))
    config.merge(changes)
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model


def samples(*boxes, shape=(128, 128)):
    """Data samples of 128 px images with boxes (K, 4) in px each."""
    made = []
    for each in boxes:
        item = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, batch_input_shape=(128, 128)))
        each = torch.as_tensor(each, dtype=torch.float32).reshape(-1, 4)
        item.gt_instances = InstanceData(bboxes=each, labels=torch.arange(len(each)) % 8)
        made.append(item)
    return made


def grid_of_boxes(count):
    corner = torch.rand(count, 2, generator=torch.Generator().manual_seed(1)) * 100
    return torch.cat([corner, corner + 4 + torch.rand(count, 2) * 20], dim=1)


def train_step(model, data):
    """Return the losses after a backward pass; all gradients must be finite."""
    model.train().zero_grad()
    images = torch.randn(len(data), 3, 128, 128, generator=torch.Generator().manual_seed(2))
    losses = model.loss(images, data)
    total, _ = model.parse_losses(losses)
    total.backward()
    for name, value in losses.items():
        assert value.isfinite(), name
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    return losses


class TestBadInput:
    def test_images_without_objects(self):
        losses = train_step(build(), samples([], []))
        assert losses["loss_cls"] > 0 and losses["loss_bbox"] == 0 and losses["enc_loss_iou"] == 0
        train_step(build(), samples([], [[10, 10, 50, 60]]))

    def test_more_objects_than_queries(self):
        losses = train_step(build(num_queries=6), samples(grid_of_boxes(50)))
        assert losses["loss_bbox"] > 0

    def test_fewer_tokens_than_queries(self):
        """128 px at patches of 8 give 32^2 + 16^2 + 8^2 + 4^2 + 2^2 = 1364 tokens: all become queries."""
        model = build(num_queries=1500, test_cfg=dict(max_per_img=50))
        train_step(model, samples(grid_of_boxes(3)))
        found = model.eval().predict(torch.zeros(1, 3, 128, 128), samples([]))[0].pred_instances
        assert len(found) == 50 and found.scores.isfinite().all()

    @pytest.mark.parametrize("box", [[30, 30, 30, 60], [60, 60, 30, 30], [0, 0, 128, 128]])
    def test_boxes_without_area_train_nothing(self, box):
        good = [[10, 10, 50, 60]]
        torch.manual_seed(0)
        both = train_step(build(), samples([*good, box]))
        torch.manual_seed(0)
        alone = train_step(build(), samples(good))
        assert (both["loss_bbox"] == alone["loss_bbox"]) == (box != [0, 0, 128, 128])

    def test_image_much_smaller_than_its_batch(self):
        data = samples([], [[1, 1, 6, 7]])
        data[1].set_metainfo(dict(img_shape=(8, 9)))
        train_step(build(), data)

    def test_objects_outside_of_the_image(self):
        train_step(build(), samples([[-50, -50, -10, -20], [100, 100, 200, 300]]))


class TestAssigner:
    candidates = torch.tensor(
        [[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 6], [50, 50, 60, 60], [90, 90, 99, 99]]
    ).float()
    objects = torch.tensor([[0, 0, 10, 10], [50, 50, 60, 75]]).float()

    def pairs(self, objects=None, **options):
        options = dict(pos_iou_thr=0.7, max_positives=10) | options
        found = DETAAssigner(**options)(self.candidates, self.objects if objects is None else objects)
        return list(zip(*(x.tolist() for x in found), strict=True))

    def test_threshold_and_best_of_an_object(self):
        # overlaps with the first object: 1, 0.8, 0.6; the second's best is 0.4
        assert self.pairs() == [(0, 0), (1, 0), (3, 1)]
        assert self.pairs(pos_iou_thr=0.5) == [(0, 0), (1, 0), (2, 0), (3, 1)]

    def test_limits(self):
        assert self.pairs(pos_iou_thr=0.5, max_per_object=2) == [(0, 0), (1, 0), (3, 1)]
        torch.manual_seed(0)
        assert len(self.pairs(pos_iou_thr=0.5, max_positives=2)) == 2
        assert len(self.pairs(pos_iou_thr=0.5, max_positives=0.4)) == 2  # of five candidates
        assert len(self.pairs(pos_iou_thr=0.5, max_positives=1.0)) == 4

    def test_object_that_nothing_overlaps_makes_all_that_miss_it_positive(self):
        """Ties at no overlap count, as in Detectron2's matcher: each positive counts for the object it fits best."""
        far = torch.tensor([[200.0, 200, 210, 210]])
        pairs = self.pairs(torch.cat([self.objects, far]))
        # the last candidate overlaps nothing and so counts for the first object: that gets four, the others as fit
        assert [pair for pair in pairs if pair[1] == 0] == [(0, 0), (1, 0), (2, 0), (3, 0)]
        assert [pair for pair in pairs if pair[1] == 1] == [(3, 1)]

    def test_nothing_to_match(self):
        assert self.pairs(torch.zeros(0, 4)) == []
        none = DETAAssigner(0.7, 10)(torch.zeros(0, 4), self.objects)
        assert [len(x) for x in none] == [0, 0]


class TestProposals:
    def choose(self, **options):
        generator = torch.Generator().manual_seed(0)
        boxes = torch.rand(30, 4, generator=generator) * 0.4 + 0.3
        logits = torch.rand(30, generator=generator)
        boxes[1] = boxes[0]  # near copies within the first level
        options = dict(count=6, per_level=10, iou_threshold=0.9) | options
        return boxes, logits, choose_proposals(boxes, logits, [20, 8, 2], **options)

    def test_a_share_of_each_level_and_no_copies(self):
        _, logits, chosen = self.choose()
        levels = torch.bucketize(chosen, torch.tensor([20, 28]), right=True)
        assert levels.bincount().tolist() == [2, 2, 2]
        assert (logits[chosen].diff() <= 0).all()
        assert not {0, 1} <= set(self.choose(count=12)[2].tolist())

    def test_options(self):
        assert {0, 1} <= set(self.choose(count=20, per_level=20, iou_threshold=1.0)[2].tolist())
        assert sum(i < 20 for i in self.choose(count=9, per_level=1)[2].tolist()) != 1  # too few: by objectness
        assert len(self.choose(count=40)[2]) == 30

    def test_what_is_missing_is_filled_by_rank(self):
        _, logits, chosen = self.choose(count=11, per_level=20)  # 3 a level, but the last has 2
        assert len(chosen) == 11 == len(set(chosen.tolist()))


class TestModel:
    def test_an_object_is_learned(self):
        model, data = build(), samples([[20, 30, 70, 90]])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        first = None
        for _ in range(12):
            losses = train_step(model, data)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total = sum(value.item() for name, value in losses.items() if "loss" in name)
            first = first or total
        assert total < 0.7 * first

    @torch.no_grad()
    @pytest.mark.parametrize("training", [True, False])
    def test_tower_dtype(self, training):
        """Training and testing have separate dtypes."""
        images, mine, other = torch.randn(1, 3, 128, 128), "tower_dtype", "test_tower_dtype"
        mine, other = (mine, other) if training else (other, mine)
        models = [build(**{name: "bfloat16"}).train(training) for name in (other, mine)]
        exact = build().train(training).extract_feat(images)
        same, half = (model.extract_feat(images) for model in models)
        assert half[0].dtype == torch.float32
        assert torch.equal(exact[1], same[1])
        assert 0 < (exact[1] - half[1]).abs().mean() < 0.1

    def test_errors(self):
        with pytest.raises(ValueError, match="tower_dtype 'float8' is not one of None, 'bfloat16', 'float16'"):
            build(tower_dtype="float8")
        with pytest.raises(ValueError, match="test_tower_dtype 'half' is not one of None, 'bfloat16', 'float16'"):
            build(test_tower_dtype="half")
        with pytest.raises(ValueError, match="init_cfg of DETA must be .* got {'type': 'Pretrained', 'path': 'a.pth'}"):
            build(init_cfg=dict(type="Pretrained", path="a.pth"))
        with pytest.raises(ValueError, match="nms has type 'fast', not one of"):
            build(test_cfg=dict(nms=dict(type="fast")))
        with pytest.raises(ValueError, match="nms has type None, not one of"):
            build(test_cfg=dict(nms=dict(_delete_=True, iou_threshold=0.7)))
        with pytest.raises(ValueError, match="test_cfg of DETAHead lacks max_per_img, pre_nms: {'nms': None}"):
            build(test_cfg=dict(_delete_=True, nms=None))
        with pytest.raises(ValueError, match="num_queries 0 is less than 1"):
            build(num_queries=0)
        with pytest.raises(ValueError, match="loss_cls counts num_classes=7, but the classifier has 8 outputs"):
            build(bbox_head=dict(loss_cls=dict(_delete_=True, type="pe_dense.FederatedFocalLoss", num_classes=7)))
        with pytest.raises(ValueError, match="out_channels 48 is not a multiple of 32"):
            DETAPyramid(64, 48)
        with pytest.raises(ValueError, match="num_levels must be at least 3"):
            DETAPyramid(64, 64, 2)

    @torch.no_grad()
    def test_padding_does_not_change_what_is_found(self):
        """Boxes of an image in a larger padded batch are inside the image."""
        model = build().eval()
        data = samples([], shape=(64, 96))
        found = model.predict(torch.randn(1, 3, 128, 128), data)[0].pred_instances
        center = (found.bboxes[:, :2] + found.bboxes[:, 2:]) / 2
        assert len(found) and (center <= torch.tensor([96.0, 64.0])).all()

    @torch.no_grad()
    def test_suppression_and_limits(self):
        data, images = samples([]), torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
        counts = {}
        for name, cfg in dict(
            hard=dict(nms=dict(iou_threshold=0.1)),
            soft=dict(nms=dict(_delete_=True, type="soft_nms", iou_threshold=0.7)),
            none=dict(nms=None),
            few=dict(pre_nms=7),
        ).items():
            model = build(test_cfg=dict(max_per_img=1000) | cfg).eval()
            found = model.predict(images, data)[0].pred_instances
            assert (found.scores.diff() <= 0).all()
            counts[name] = len(found)
        # 20 queries of 8 classes, hard NMS drops some, soft NMS none
        assert counts["none"] == counts["soft"] == 160 and counts["few"] <= 7
        assert counts["hard"] < 160


class TestFederatedLoss:
    def losses(self, **loss):
        model = build(bbox_head=dict(loss_cls=dict(_delete_=True, **loss)))
        torch.manual_seed(0)
        return train_step(model, samples(grid_of_boxes(3)))

    def test_all_classes_are_the_focal_loss(self):
        plain = self.losses(type="FocalLoss", use_sigmoid=True)
        federated = self.losses(type="pe_dense.FederatedFocalLoss", num_classes=8, num_sampled=None)
        assert federated["loss_cls"].item() == pytest.approx(plain["loss_cls"].item(), rel=1e-4)
        assert federated["enc_loss_cls"] < plain["enc_loss_cls"]  # its silent outputs are left alone

    def test_some_classes(self):
        options = dict(type="pe_dense.FederatedFocalLoss", num_classes=8)
        everything = self.losses(**options, num_sampled=None)
        some = self.losses(**options, num_sampled=5)  # three of objects, the background and one other
        assert some["loss_cls"] < everything["loss_cls"]
        assert some["enc_loss_cls"] == everything["enc_loss_cls"]
        assert self.losses(**options, alpha=0.5)["loss_cls"] != everything["loss_cls"]
        assert self.losses(**options, gamma=1.0)["loss_cls"] > everything["loss_cls"]


class TestPyramid:
    @pytest.mark.parametrize("levels", [3, 4, 5, 6])
    def test_levels(self, levels):
        maps = DETAPyramid(64, 32, levels)([torch.randn(2, 64, 16, 12)])
        sizes = [(32, 24), (16, 12), (8, 6), (4, 3), (2, 2), (1, 1)]
        assert [tuple(x.shape) for x in maps] == [(2, 32, *size) for size in sizes[:levels]]


class TestTransforms:
    @pytest.mark.parametrize("image_size", [512, 1024])
    def test_jitter_sizes(self, image_size):
        np.random.seed(0)
        jitter, shorter, longer = DETAJitter(image_size), set(), set()
        for _ in range(30):
            results = dict(img=np.zeros((300, 420, 3), np.uint8), img_shape=(300, 420))
            shape = jitter(results)["img"].shape[:2]
            shorter.add(min(shape))
            longer.add(max(shape))
        assert max(longer) <= image_size - 32
        # longest sides up to 480 px leave no choice, up to 992 px they leave many sizes
        assert (min(longer) >= 479, len(shorter) > 1) == (True, True) if image_size == 512 else max(shorter) > 600

    def test_jitter_enlarges_every_crop_to_the_full_size(self):
        np.random.seed(0)
        jitter, cropped = DETAJitter(1024), []
        crop = jitter.crop
        jitter.crop = lambda results: cropped.append(True) or crop(results)
        for _ in range(20):
            results = dict(img=np.zeros((300, 420, 3), np.uint8), img_shape=(300, 420))
            before = len(cropped)
            longest = max(jitter(results)["img"].shape[:2])
            assert len(cropped) == before or 990 <= longest <= 993
        assert 5 <= len(cropped) <= 15

    @pytest.mark.parametrize(
        ("step", "message"),
        [
            (lambda: DETAJitter(500), "image_size 500 is too small for DETAJitter: it must be at least 512"),
            (lambda: DETAResize(32), "image_size 32 is too small for DETAResize: it must be more than 32"),
            (lambda: DETAView(1824, 1.5), "ratio 1.5 of a DETAView must be more than 0 and at most 1"),
        ],
    )
    def test_errors(self, step, message):
        with pytest.raises(ValueError, match=message):
            step()

    def test_boxes_are_resized_by_the_factors_of_each_side(self):
        """100 x 301 px in 64 px: the shorter side is round(32 * 100 / 301) = 11 px, the longer one int(11 * 3.01)."""
        boxes = HorizontalBoxes(torch.tensor([[0.0, 0, 100, 301], [50, 0, 100, 100]]))
        results = DETAResize(64)(dict(img=np.zeros((301, 100, 3), np.uint8), img_shape=(301, 100), gt_bboxes=boxes))
        assert results["img"].shape == (33, 11, 3) and results["img_shape"] == (33, 11)
        expected = torch.tensor([[0, 0, 11, 33], [5.5, 0, 11, 100 * 33 / 301]])
        torch.testing.assert_close(results["gt_bboxes"].tensor, expected)

    def test_detr_size_of_extreme_images(self):
        assert detr_size(3000, 1, 992, 992) == (3000, 1)
        assert detr_size(5000, 2, 992, 992) == (2500, 1)  # the published code fails here: its shorter side is 0 px

    def test_views_equal_those_of_the_normalized_tensor(self):
        """The published code resizes the normalized tensor; resizing 8-bit pixels would differ by their rounding."""
        image = np.random.default_rng(0).integers(0, 256, (150, 224, 3), dtype=np.uint8)
        mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])

        def normalized(pixels):
            return ((torch.as_tensor(pixels).float() - mean) / std).permute(2, 0, 1)

        view = DETAView(256, 0.75)(dict(img=image.copy()))
        assert view["img_shape"] == view["img"].shape[:2] == (128, 192) and view["scale"] == (192, 192)
        expected = torchvision_resize(normalized(image), [128, 192], antialias=True)
        torch.testing.assert_close(normalized(view["img"]), expected, atol=1e-5, rtol=0)
        unchanged = DETAView(256, 1.0)(dict(img=image.copy(), scale=(224, 224)))
        assert unchanged["img"].dtype == np.uint8 and (unchanged["img"] == image).all()


class TestTimeAugmentation:
    def view(self, scale, flip, boxes, scores):
        item = DetDataSample(
            metainfo=dict(scale=(scale, scale), flip=flip, flip_direction="horizontal", ori_shape=(100, 200))
        )
        boxes = torch.tensor(boxes, dtype=torch.float32)
        labels = torch.zeros(len(boxes), dtype=torch.long)
        item.pred_instances = InstanceData(bboxes=boxes, scores=torch.tensor(scores), labels=labels)
        return item

    def model(self, **options):
        config = dict(type="pe_dense.DETATTAModel", module=tiny(), min_sides=[0, 30])
        init_default_scope("mmdet")
        return MODELS.build(config | options)

    def test_views_are_merged(self):
        views = [
            self.view(128, False, [[10, 10, 20, 20], [50, 50, 90, 90]], [0.5, 0.9]),
            self.view(128, True, [[180, 10, 190, 20]], [0.6]),  # the first box, flipped
            # An area of 100 px^2 is too small here, one of 5 x 200 px is not.
            self.view(96, False, [[10, 10, 20, 20], [50, 50, 90, 90], [0, 0, 200, 5]], [0.8, 0.7, 0.3]),
        ]
        found = self.model().merge_preds([views])[0].pred_instances
        assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6, 0.5, 0.3])
        assert found.bboxes[2].tolist() == [10, 10, 20, 20]
        soft = self.model(nms=dict(type="soft_nms", iou_threshold=0.7, min_score=0.001))
        soft = soft.merge_preds([views])[0].pred_instances
        assert soft.scores.tolist() == pytest.approx([0.9, 0.6, 0.3])
        assert len(self.model(max_per_img=3).merge_preds([views])[0].pred_instances) == 3
        assert views[0].pred_instances.scores.tolist() == pytest.approx([0.5, 0.9])

    def test_nms_is_applied_to_each_view_before_the_area_limit(self):
        """A small box of a view lowers the score of a large one, IoU 840 / 930, and is dropped afterwards."""
        view = self.view(96, False, [[0, 0, 28, 30], [0, 0, 30, 31]], [0.9, 0.5])
        model = self.model(min_sides=[30], nms=dict(type="soft_nms", iou_threshold=0.7))
        found = model.merge_preds([[view]])[0].pred_instances
        assert found.scores.tolist() == pytest.approx([0.5 * (1 - 840 / 930) ** 0.5])

    def test_boxes_without_area_are_dropped(self):
        view = self.view(96, False, [[5, 5, 5, 30], [0, 0, 30, 31]], [0.9, 0.5])
        assert len(self.model(min_sides=[0]).merge_preds([[view]])[0].pred_instances) == 1

    def test_unknown_suppression(self):
        with pytest.raises(ValueError, match="nms has type 'softnms', not one of"):
            self.model(nms=dict(type="softnms"))

    def test_another_number_of_sizes(self):
        with pytest.raises(ValueError, match=r"min_sides has 2 entries, but the views have 1 sizes: \[64\]"):
            self.model().merge_preds([[self.view(64, False, [[0, 0, 9, 9]], [0.5])]])

    def test_views_give_all_that_they_find(self):
        module = self.model(num_queries=150, pre_nms=70).module
        assert (module.num_queries, module.bbox_head.test_cfg["nms"]) == (150, None)
        assert module.bbox_head.test_cfg["max_per_img"] == module.bbox_head.test_cfg["pre_nms"] == 70

    def test_takes_a_detectors_checkpoint(self):
        from pe_dense.engine.runner import load_model_state

        model = self.model()
        plain = MODELS.build(tiny())
        load_model_state(model, dict(state_dict=plain.state_dict()), "file.pth")
        assert torch.equal(model.module.level_embed, plain.level_embed)
