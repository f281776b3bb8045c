"""The demo: a detector, probes, tracking, words and pictures of features on PE-Mini, on a CPU in minutes.

Every part is a command of this project, run in a process of its own, and ends in a page that shows the results. Two
chains of commands run side by side: the detector, and everything else.
"""

from __future__ import annotations

import html
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pe_dense.utils.atomic_write import atomic_write
from pe_dense.utils.errors import UserError

SCENES, DEPTH_SCENES, VIDEOS = "data/shapes", "data/shapes_perspective", "data/shapes_video_demo"
# The classes of pe_dense.datasets.synthetic, whose import would delay the demo by seconds; a test compares them.
FORMS = "circle, square, triangle, star, ring, cross, crescent, heart"
_PICTURES = 8
_DRAWINGS = "*[0-9].png"  # not label maps and depth maps beside them


class DemoError(UserError):
    """A command of the demo failed."""


@dataclass
class Part:
    """A command of the demo.

    Attributes:
        title: of its section on the page.
        command: arguments of ``pe-dense``.
        out: folder of its results; the part is left out if ``out/done.json`` names the same command.
        caption: text below the pictures.
        pictures: globs, relative to ``out``.
        figures: keys of a test run's metrics on the page, with their text before and after the value, and its factor.
    """

    title: str
    command: list[str]
    out: Path
    caption: str = ""
    pictures: Sequence[str] = ()
    figures: dict[str, tuple[str, str, float]] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The command as a user types it."""
        return shlex.join(["pe-dense", *self.command])

    def is_done(self) -> bool:
        """Tell whether the same command has already run to its end."""
        path = self.out / "done.json"
        return path.is_file() and json.loads(path.read_text()) == self.command

    def files(self) -> list[Path]:
        """List the pictures."""
        return [file for pattern in self.pictures for file in sorted(self.out.glob(pattern))[:_PICTURES]]

    def values(self) -> dict[str, str]:
        """Read the last metrics of the log folders in ``out``, of tests and of validation during training."""
        found: dict[str, str] = {}
        for path in [*sorted(self.out.glob("20*/20*.json")), *sorted(self.out.glob("20*/vis_data/scalars.json"))]:
            for line in path.read_text().splitlines():
                content = json.loads(line)
                for key, (before, after, factor) in self.figures.items():
                    if key in content:
                        found[before] = f"{factor * content[key]:.3g}{after}"
        return found


def validation(root: str) -> list[str]:
    """List scenes that are not trained on."""
    return [f"{root}/val/{number:06d}.png" for number in range(_PICTURES)]


def detector(out: Path) -> list[Part]:
    """List the commands of the detector."""
    config, run = "shapes_maskrcnn_pe_tiny", out / "detector"
    scenes = validation(SCENES)
    return [
        Part("", ["train", config, "--work-dir", str(run), "--resume"], run),
        Part(
            "Detection and instance segmentation",
            ["test", config, str(run), "--work-dir", str(run / "test")],
            run / "test",
            figures={
                "coco/bbox_mAP_50": ("box AP50", " %", 100),
                "coco/segm_mAP_50": ("mask AP50", " %", 100),
                "coco/bbox_mAP": ("box AP", " %", 100),
                "coco/segm_mAP": ("mask AP", " %", 100),
            },
        ),
        Part(
            "",
            ["predict", config, str(run), *scenes, "--out", str(run / "pictures"), "--overwrite"],
            run / "pictures",
            "Mask R-CNN on PE-Mini-Spatial, on scenes that were held out: 80 of them for the figures.",
            pictures=[_DRAWINGS],
        ),
    ]


def others(out: Path) -> list[Part]:
    """List the commands of all other parts."""
    scenes = validation(SCENES)[:4]
    frames = [f"{VIDEOS}/JPEGImages/480p/shapes-000/{number:05d}.jpg" for number in (0, 8)]
    video = ["--cfg-options", f"data_root={VIDEOS}"]
    # Shapes of different colors, which are easy to track, at twice their size for fine masks.
    easy = ("generator.num_videos=3", "generator.num_frames=16", "generator.same_surface=False")
    video += [f"test_dataloader.dataset.{option}" for option in (*easy, "pipeline.0.short_side=256")]
    # The scenes are made by the detector's run, so the parts without them come first.
    parts = [
        Part(
            "Tracking",
            ["test", "shapes_propagation_pe_tiny", "--work-dir", str(out / "tracking"), *video],
            out / "tracking",
            "Masks of the first frame, propagated by the similarity of patches; nothing is trained.",
            pictures=["20*/overlays/*.jpg"],
            figures={"davis/J&F": ("J&F", " %", 100), "davis/copy_J&F": ("J&F of the first mask, copied", " %", 100)},
        ),
        Part(
            "Correspondence",
            [
                *("visualize", *frames, "--arch", "PE-Mini-Spatial", "--mode", "correspondence"),
                *("--size", "256", "--out", str(out / "correspondence"), "--overwrite"),
            ],
            out / "correspondence",
            "Mutual nearest neighbors among the patches of two frames.",
            pictures=[_DRAWINGS],
        ),
        Part(
            "Features",
            ["visualize", *scenes, "--arch", "PE-Mini-Spatial", "--out", str(out / "features"), "--overwrite"],
            out / "features",
            "The first three principal components of PE-Mini-Spatial's last layer as colors.",
            pictures=[_DRAWINGS],
        ),
        Part(
            "Words",
            [
                *("predict", "PE-Mini-Core", "words", *scenes, "--words", f"background; empty background, {FORMS}"),
                *("--out", str(out / "words"), "--overwrite"),
            ],
            out / "words",
            "The most similar of these words for each patch, by the image and text towers of PE-Mini-Core; no label "
            "map was used in training.",
            pictures=[_DRAWINGS],
        ),
    ]
    for name, title, config, root, caption, figures in (
        (
            "classes",
            "Semantic segmentation",
            "shapes_linear_pe_tiny",
            SCENES,
            "A linear layer on the frozen tower: one class for each patch, no other parameters.",
            {"mIoU": ("mIoU of nine classes", " %", 1)},
        ),
        (
            "depth",
            "Depth",
            "shapes_depth_linear_pe_tiny",
            DEPTH_SCENES,
            "A linear layer on the frozen tower; all shapes are equally large, so that larger ones are nearer.",
            {"rmse": ("RMSE", " m", 1)},
        ),
    ):
        run = out / name
        parts += [
            Part("", ["train", config, "--work-dir", str(run), "--resume"], run, figures=figures),
            Part(
                title,
                ["predict", config, str(run), *validation(root)[:4], "--out", str(run / "pictures"), "--overwrite"],
                run / "pictures",
                caption,
                pictures=[_DRAWINGS],
            ),
        ]
    return parts


def run_demo(out: Path, say: Callable[[str], None] = print) -> Path:
    """Run all parts and write the page; parts that have run to their end are not run again.

    Args:
        out: folder of all results.
        say: prints a line.

    Returns:
        the path of the page.

    Raises:
        DemoError: if a command fails; names its log.
    """
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    chains = [detector(out), others(out)]
    total = sum(len(chain) for chain in chains)
    stop, lock = threading.Event(), threading.Lock()
    done: list[Part] = []
    errors: list[Exception] = []

    def run(chain: list[Part], shown: bool) -> None:
        for part in chain:
            if stop.is_set():
                return
            began = time.monotonic()
            try:
                finished = _run(part, stop, say if shown else lambda line: None)
            except Exception as error:  # raised again below, also that of the second thread
                errors.append(error)
                stop.set()
                return
            if not finished:
                return
            with lock:
                done.append(part)
                now = time.monotonic()
                say(f"[{len(done)}/{total}, {now - start:.0f} s] {part.line} ({now - began:.0f} s)")

    # The detector's output is shown, as it takes the longest; that of the others goes to their logs only.
    second = threading.Thread(target=run, args=(chains[1], False))
    second.start()
    try:
        run(chains[0], True)
        second.join()
    finally:
        if len(done) < total:
            stop.set()
        second.join()
    if errors:
        raise errors[0]
    page = out / "index.html"
    with atomic_write(page, "w") as file:
        file.write(page_of([part for chain in chains for part in chain], out))
    return page


def _run(part: Part, stop: threading.Event, show: Callable[[str], None]) -> bool:
    """Run a part to its end, or until ``stop`` is set; tell whether it has finished."""
    if part.is_done():
        return True
    part.out.mkdir(parents=True, exist_ok=True)
    log = part.out.parent / f"{part.out.name}.log"
    # One thread: the same figures each time, and nothing lost where another program wants the second core.
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    command = [sys.executable, "-m", "pe_dense", *part.command]
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    shown = 0
    try:
        while process.poll() is None:
            if stop.wait(0.5):
                return False
            lines = log.read_text(errors="replace").splitlines()
            for line in lines[shown:-1]:
                if "Iter(" in line or "images," in line:
                    show(line)
            shown = max(shown, len(lines) - 1)
    finally:  # also where a signal ends the demo here
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode:
        tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        raise DemoError(f"{part.line} failed with status {process.returncode}: {tail[0]} (all of its output: {log})")
    with atomic_write(part.out / "done.json", "w") as file:
        json.dump(part.command, file)
    return True


def page_of(parts: Sequence[Part], out: Path) -> str:
    """Write the page: a section for each part with pictures, and the figures of the parts before it."""
    title, sections, values, commands = "", [], {}, []
    for part in parts:
        values |= part.values()
        commands.append(part.line)
        title = part.title or title
        if not part.pictures:
            continue
        numbers = " · ".join(f"{name} {value}" for name, value in values.items())
        images = "".join(
            f'<a href="{path}"><img src="{path}" alt="{html.escape(title)}"></a>'
            for path in (file.relative_to(out).as_posix() for file in part.files())
        )
        lines = "".join(f"<code>{html.escape(line)}</code>" for line in commands)
        sections.append(
            f"<section><h2>{html.escape(title)}</h2><p>{html.escape(part.caption)}"
            f"{f' <b>{html.escape(numbers)}</b>' if numbers else ''}</p><div>{images}</div>"
            f"<details><summary>Commands</summary>{lines}</details></section>"
        )
        values, commands = {}, []
    return _PAGE.format(sections="\n".join(sections))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>pe_dense: demo</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }}
div {{ display: flex; flex-wrap: wrap; gap: .5rem; }}
img {{ height: 220px; max-width: 100%; object-fit: contain; }}
code {{ display: block; overflow-x: auto; white-space: pre; }}
</style></head><body>
<h1>pe_dense: demo</h1>
<p>Everything here was made on this machine by PE-Mini, a miniature Perception Encoder that comes with the package, and
by generated scenes.</p>
{sections}
</body></html>
"""
