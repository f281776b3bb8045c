"""Open-vocabulary segmentation of COCO's 80 classes of objects and the background with PE Core L, without training.

    tools/test.py configs/cocoobject_words_pe_l14.py

Options as in ade20k_words_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.words import *

data_root = "data/coco_stuff164k"
data_source = dict(
    name="COCO-Stuff 164k",
    url="https://github.com/nightrome/cocostuff (mmsegmentation's converter makes the labels)",
    layout="images/val2017/*.jpg and annotations/val2017/*_labelTrainIds.png",
)
# Labels of COCO-Stuff: the first 80 are objects; stuff and pixels without a class are background.
names = """
    background,
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop
    sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack,
    umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball
    glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana,
    apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed,
    dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink,
    refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""
classes = " ".join(names.split()).split(", ")
test_dataloader = words_loader(
    dict(
        type="BaseSegDataset",
        seg_map_suffix="_labelTrainIds.png",
        metainfo=dict(classes=classes),
        data_root=data_root,
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
    ),
    num_classes=len(classes),
    short_side=336,
    value_map={label: label + 1 if label < 80 else 0 for label in (*range(171), 255)},
)
model.merge(dict(words="cocoobject.txt", threshold=0.25))
del words_loader
