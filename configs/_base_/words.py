"""Training-free open-vocabulary segmentation with PE Core L, in the protocol of ProxyCLIP (arXiv 2408.04883).

Images are resized to a short side, cut into windows of 336 px with a stride of 112 px and compared with the prompts of
the words in `model.words`: a file of pe_dense/language/words, one of yours, or a list.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

from mmengine.config import read_base

with read_base():
    from .runtime import *

default_scope = "mmseg"
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])

tower = "PE-Core-L14-336"  # an option changes it everywhere: tower=PE-Core-G14-448

model = dict(
    type="pe_dense.OpenVocabularySegmenter",
    clip=dict(vision=tower),
    words=None,
    mode="pooled",
    templates="imagenet",
    logit_scale=40.0,
    threshold=0.0,
    test_cfg=dict(mode="slide", crop_size=(336, 336), stride=(112, 112)),
    init_cfg=dict(type="Pretrained", checkpoint=f"hf://facebook/{tower}"),
)
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="pe_dense.IoUMetric")
custom_hooks = [dict(type="pe_dense.WordsCheckHook")]
inferencer = dict(type="pe_dense.OpenVocabularyPredictor")
default_hooks.merge(dict(logger=dict(interval=10)))


def words_loader(dataset, num_classes, short_side, **labels):
    """Data loader of a test.

    Args:
        dataset: of mmseg.
        num_classes: of the data set.
        short_side: of the images, in pixels, unless the long side would exceed 2048.
        labels: further arguments of LoadLabelMap.
    """
    return dict(
        batch_size=1,
        num_workers=4,
        persistent_workers=True,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(
            dataset,
            test_mode=True,
            pipeline=[
                dict(type="pe_dense.LoadImage"),
                dict(type="Resize", scale=(2048, short_side), keep_ratio=True),
                dict(type="pe_dense.LoadLabelMap", num_classes=num_classes, **labels),
                dict(type="PackSegInputs"),
            ],
        ),
    )
