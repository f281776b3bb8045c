"""Zero-shot classification and retrieval: prompts, figures, files, the tool, clip-benchmark's adapter."""

import json
import sys
import tarfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_clip import tiny_clip
from helpers.tiny_towers import photo_file
from helpers.tool_runs import call_tool
from PIL import Image

from pe_dense.cli import main
from pe_dense.language import get_image_transform, get_text_tokenizer, save_clip
from pe_dense.language.zero_shot import (
    class_embeddings,
    classification_accuracy,
    encode_files,
    evaluate_classification,
    evaluate_retrieval,
    get_templates,
    read_labels,
    recall_at_k,
)
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.video import write_video


@pytest.fixture(scope="module")
def model():
    return tiny_clip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        (folder / f"{i}.png").write_bytes(photo_file(seed=i))
    rng = np.random.default_rng(0)
    write_video(folder / "clip.mp4", [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(5)], 5)
    (folder / "labels.csv").write_text("file,label\n0.png,dog\n1.png,cat\n2.png,\nclip.mp4,dog\n")
    (folder / "captions.csv").write_text("file,caption\n0.png,a dog\n0.png,a pet\n1.png,a pet\nclip.mp4,a film\n")
    save_clip(model, folder / "clip.pt")
    return folder


@torch.no_grad()
def test_prompt_ensemble(model):
    prompts = [["a photo of a cat.", "the cat"], ["a photo of a dog.", "the dog"]]
    tokenize = get_text_tokenizer(16)
    expected = [F.normalize(F.normalize(model.encode_text(tokenize(p)), dim=1).mean(0), dim=0) for p in prompts]
    embeddings = class_embeddings(model, ["cat", "dog"], ["a photo of a {}.", "the {}"])
    torch.testing.assert_close(embeddings, torch.stack(expected))
    # Results do not depend on the other classes.
    torch.testing.assert_close(class_embeddings(model, ["dog"], ["a photo of a {}.", "the {}"])[0], embeddings[1])


def test_templates():
    assert get_templates("photo") == get_templates(["photo"]) == ["a photo of a {}."]
    assert get_templates("none") == ["{}"]
    assert len(get_templates("imagenet")) == 80 and len(get_templates("vild")) == 14
    for wrong in ("imagnet", "a {} and a {}", []):
        with pytest.raises(ValueError, match="template"):
            get_templates(wrong)


def test_figures():
    logits = torch.tensor([[3.0, 2, 1], [3, 2, 1], [1, 2, 3], [1, 3, 2]])
    figures = classification_accuracy(logits, torch.tensor([0, 0, 2, 2]))
    assert figures == dict(top1=0.75, top5=1.0, mean_per_class_recall=0.75)
    figures = classification_accuracy(logits, torch.tensor([0, 0, 0, 2]))
    assert figures["top1"] == 0.5 and figures["mean_per_class_recall"] == pytest.approx(1 / 3)

    scores = torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.2, 0.1]])
    positives = torch.tensor([[False, True, False], [True, False, True]])
    assert recall_at_k(scores, positives, (1, 2, 5)) == {1: 0.5, 2: 1.0, 5: 1.0}
    # The softmax over queries moves the second item of the first query up.
    sharp = scores * 10
    assert recall_at_k(sharp, positives, (1,)) == {1: 0.5} and recall_at_k(sharp, positives, (1,), True) == {1: 1.0}
    with pytest.raises(ValueError, match="query 1 has no positive"):
        recall_at_k(scores, torch.tensor([[True, False, False], [False] * 3]))


def test_files_alone_or_in_a_batch(model, folder):
    files = [folder / name for name in ("0.png", "clip.mp4", "1.png", "missing.png", "2.png")]
    left_out = []
    batched = {}
    for numbers, rows in encode_files(model, files, batch_size=2, left_out=left_out):
        batched |= dict(zip(numbers, rows, strict=True))
    assert sorted(batched) == [0, 1, 2, 4] and left_out[0][0] == 3 and "missing.png" in left_out[0][1]
    for number in batched:
        ((_, (alone,)),) = encode_files(model, [files[number]])
        torch.testing.assert_close(alone, batched[number])
    with pytest.raises(FileNotFoundError, match="missing.png"):
        list(encode_files(model, files))


def test_evaluation_of_a_labels_file(model, folder):
    figures = evaluate_classification(model, folder / "labels.csv")
    transform = get_image_transform(32)
    image = torch.stack([transform(Image.open(folder / f"{i}.png")) for i in range(2)])
    with torch.no_grad():
        ranked = (model.encode_image(image, True) @ class_embeddings(model, ["cat", "dog"]).T).argmax(1).tolist()
    right = (ranked[0] == 1) + (ranked[1] == 0)
    assert figures["top1"] * 3 - right == pytest.approx(0, abs=1e-5) or figures["top1"] * 3 - right == pytest.approx(1)
    figures = evaluate_retrieval(model, folder / "captions.csv", (1, 3))
    assert set(figures) == {
        f"{name}_r{k}{suffix}"
        for name in ("text_to_image", "image_to_text")
        for k in (1, 3)
        for suffix in ("", "_reweighted")
    }
    assert figures["text_to_image_r3"] == figures["image_to_text_r3"] == 1


def test_evaluation_of_folders_by_class(model, folder, tmp_path):
    """Folders named after the classes give the figures of a table with the same labels."""
    for name, label in (("0", "dog"), ("1", "cat")):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    (tmp_path / "labels.csv").write_text("file,label\ncat/1.png,cat\ndog/0.png,dog\n")
    figures = evaluate_classification(model, tmp_path)
    assert figures == evaluate_classification(model, tmp_path / "labels.csv")
    done = call_tool("zeroshot", folder / "clip.pt", "--data", tmp_path, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{name}: {value:.2%}\n" for name, value in figures.items())


def test_evaluation_leaves_out_files_that_cannot_be_read(model, folder, tmp_path):
    for name in ("0.png", "1.png", "clip.mp4"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "broken.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = ["broken.png,dog", "0.png,dog", "1.png,cat", "broken.mp4,cat", "clip.mp4,dog"]
    good = [row for row in rows if "broken" not in row]
    for evaluate, column in ((evaluate_classification, "label"), (evaluate_retrieval, "caption")):
        (tmp_path / "all.csv").write_text("\n".join([f"file,{column}", *rows, "broken.png,only this"]))
        (tmp_path / "good.csv").write_text("\n".join([f"file,{column}", *good]))
        with pytest.raises(ValueError, match="broken.png"):
            evaluate(model, tmp_path / "all.csv")
        left_out = []
        figures = evaluate(model, tmp_path / "all.csv", batch_size=2, left_out=left_out)
        assert {path.name for path, _ in left_out} == {"broken.png", "broken.mp4"}
        if column == "caption":  # an image less has no effect on the others' embeddings
            assert figures == pytest.approx(evaluate(model, tmp_path / "good.csv"))
    (tmp_path / "none.csv").write_text("file,label\nbroken.png,dog\n")
    with pytest.raises(ValueError, match="none of 1 files can be read; the first: .*broken.png"):
        evaluate_classification(model, tmp_path / "none.csv", left_out=[])


def test_labels_files_that_are_not_usable(tmp_path, folder, monkeypatch):
    lines = []
    monkeypatch.setattr("pe_dense.datasets.captions.print_log", lambda line, **_: lines.append(line))
    assert read_labels(folder / "labels.csv", "label")[1] == ["dog", "cat", "dog"]
    assert lines == [f"{folder}/labels.csv: 1 images without a label are left out: 2.png"]
    for content, message in (
        ("file,caption\na.png,x\n", "lacks the column label; found: file, caption"),
        ("", "lacks the column file, label; found: none"),
        ("file,label\na.png,\n", "no row with a label"),
        ("file,label\n0.png,dog\n,cat\n", "x.csv: row 2 after the header names no file"),
        ('file,label\n0.png,"dog\n1.png,cat\n', "x.csv is not a CSV file in UTF-8: unexpected end of data"),
        ("file,label\na.png,x\n", "1 of 1 files of .* do not exist, such as .*a.png"),
    ):
        (tmp_path / "x.csv").write_text(content)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_labels(tmp_path / "x.csv", "label")


def test_labels_that_the_text_tower_cannot_distinguish(model, folder, tmp_path):
    """Their scores are equal, so that the images of one of them would count as wrong."""
    (tmp_path / "x.csv").write_text("file,label\n0.png,dog\n1.png,Dog\n")
    with pytest.raises(ConfigError, match=r"labels of .*x.csv, without distinction of letter case: .* twice: dog"):
        evaluate_classification(model, tmp_path / "x.csv", root=folder)


def test_table_written_on_windows(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/0.png", "a\\1.png"):  # the second one is a file name with a backslash
        (tmp_path / name).touch()
    (tmp_path / "x.csv").write_bytes(b"file, label\r\na\\0.png,dog\r\na\\1.png,cat\r\n,\r\n")
    files, labels = read_labels(tmp_path / "x.csv", "label")
    assert files == [tmp_path / "a" / "0.png", tmp_path / "a\\1.png"] and labels == ["dog", "cat"]


def test_tool(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.json"
    words = ["--words", "a cat, a dog", "--device", "cpu"]
    ended = call_tool("zeroshot", folder / "clip.pt", folder, folder / "clip.mp4", *words, "--json", out)
    assert ended.returncode == 0, ended.stderr
    results = json.loads(out.read_text())
    assert len(results) == 4 and len(ended.stdout.splitlines()) == 4
    assert all(sum(row.values()) == pytest.approx(1) for row in results.values())
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "0.png").write_bytes((folder / "0.png").read_bytes())
    monkeypatch.setattr(sys, "argv", [])
    (tmp_path / "labels.csv").write_text("file,label\nbroken.png,cat\n0.png,dog\n")
    for arguments in ([tmp_path / "broken.png", tmp_path / "0.png", *words], ["--labels", tmp_path / "labels.csv"]):
        with pytest.raises(SystemExit) as ended:
            main(["zeroshot", str(folder / "clip.pt"), *map(str, arguments)])
        assert ended.value.code == 1
        *_, named, counted = capsys.readouterr().out.splitlines()
        assert named.startswith(f"left out: {tmp_path / 'broken.png'} is not a readable image")
        assert counted == "Left out, since they cannot be read: 1 files"


def test_tool_with_synonyms_and_a_file(folder, tmp_path):
    """A class takes its best synonym, in a softmax over all words; a file has one class a line."""
    arguments = [folder / "0.png", "--device", "cpu", "--templates", "none", "--words"]
    (tmp_path / "words.txt").write_text("dog; puppy\n\n# comment\ncat\n")
    results = []
    for number, words in enumerate(("dog, puppy, cat", "dog; puppy, cat", tmp_path / "words.txt")):
        out = tmp_path / f"{number}.json"
        ended = call_tool("zeroshot", folder / "clip.pt", *arguments, words, "--json", out)
        assert ended.returncode == 0, ended.stderr
        results += json.loads(out.read_text()).values()
    single, grouped, from_file = results
    assert grouped == pytest.approx(dict(dog=max(single["dog"], single["puppy"]), cat=single["cat"]))
    assert from_file == grouped


def test_tool_with_files_of_another_folder(folder, tmp_path):
    """Captions of generated scenes, in annotations, name files by the folder above."""
    (tmp_path / "captions.jsonl").write_text('{"file": "0.png", "captions": ["a dog"]}\n')
    captions = [folder / "clip.pt", "--captions", tmp_path / "captions.jsonl", "--device", "cpu"]
    ended = call_tool("zeroshot", *captions)
    assert ended.returncode == 2 and ended.stderr.strip().endswith(f"they are relative to {tmp_path}")
    assert "text_to_image_r1: 100.00%" in call_tool("zeroshot", *captions, "--data-root", folder).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--words", "missing/words.txt"], "word file missing/words.txt does not exist"),
        (["--words", "cat", "--data-root", "."], "--data-root belongs to --labels and --captions"),
        (["--words", "cat", "--json", "."], "--json . is a folder: name a file"),
    ],
)
def test_tool_refuses(folder, arguments, message):
    ended = call_tool("zeroshot", folder / "clip.pt", folder / "0.png", *arguments)
    assert ended.returncode == 2 and ended.stderr == f"error: {ended.stderr[7:].strip()}\n" and message in ended.stderr


def write_webdataset(root, count=6):
    (root / "test").mkdir(parents=True)
    (root / "test/nshards.txt").write_text("1")
    (root / "classnames.txt").write_text("cat\ndog")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\na {c}")
    with tarfile.open(root / "test/0.tar", "w") as shard:
        for i in range(count):
            for ending, content in (("png", photo_file(seed=i)), ("cls", str(i % 2).encode())):
                path = root / f"{i}.{ending}"
                path.write_bytes(content)
                shard.add(path, f"{i:04d}.{ending}")


def test_clip_benchmark(model, folder, tmp_path, monkeypatch):
    """The clip-benchmark package evaluates zero-shot classification with the same results as this package."""
    pytest.importorskip("clip_benchmark")
    from pe_dense.language import clip_benchmark

    write_webdataset(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    arguments = ["--dataset", "wds/shapes", "--dataset_root", str(tmp_path / "data"), "--task=zeroshot_classification"]
    arguments += ["--model", str(folder / "clip.pt"), "--pretrained", "tiny", "--batch_size=4", "--num_workers=0"]
    clip_benchmark.main(["eval", *arguments, "--output", str(tmp_path / "out.json"), "--no_amp"])
    metrics = json.loads((tmp_path / "out.json").read_text())["metrics"]

    rows = "".join(f"data/{i}.png,{('cat', 'dog')[i % 2]}\n" for i in range(6))
    (tmp_path / "labels.csv").write_text("file,label\n" + rows)
    expected = evaluate_classification(model, tmp_path / "labels.csv", ["a photo of a {}.", "a {}"])
    assert metrics["acc1"] == pytest.approx(expected["top1"])
    assert metrics["mean_per_class_recall"] == pytest.approx(expected["mean_per_class_recall"])
