"""Saving, loading and pushing models, offline: in folders and with a stub of the hub's HTTP API."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import torch
from helpers.exported import CLASSES, tiny_detector
from helpers.tiny_clip import tiny_clip
from helpers.tiny_probe import build, write_tower
from helpers.tiny_towers import ARCH, tiny_tower
from safetensors.torch import load_file

from pe_dense.backbones import PETower
from pe_dense.utils.checkpoint import CheckpointError, write_safetensors
from pe_dense.utils.errors import InputError, UserError
from pe_dense.utils.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE


def assert_same(first, second):
    one, other = first.hub_state(), second.hub_state()
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype and torch.equal(value, other[key]), key


def models():
    yield "tower", tiny_tower(window_size=2, global_blocks=(1,), pos_embed="tile", out_indices=(0, 2))
    yield "clip", tiny_clip()
    yield "mask_rcnn", tiny_detector("shapes_maskrcnn_pe_tiny")
    yield "deta", tiny_detector("shapes_deta_pe_tiny")


def test_round_trip(tmp_path):
    """Every tensor is equal bit by bit, and the model is built as it was."""
    for name, model in models():
        model.class_names = CLASSES
        model.save_pretrained(tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} == {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE}
        loaded = type(model).from_pretrained(tmp_path / name)
        assert_same(model, loaded)
        assert loaded.class_names == CLASSES and not loaded.training
        assert loaded.hub_arguments() == model.hub_arguments()
    assert "init_cfg" not in (tmp_path / "deta" / CONFIG_FILE).read_text()


@torch.no_grad()
def test_probe_brings_its_backbone(tmp_path):
    """Checkpoints of a probe do not contain the frozen backbone; folders for the hub do."""
    for task in ("segmentation", "dpt"):
        model = build(task, "Probe", (1,), write_tower(tmp_path / "tower.pt")).eval()
        model.save_pretrained(tmp_path / task)
        loaded = type(model).from_pretrained(tmp_path / task)
        assert_same(model, loaded)
        images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        metas = [dict(img_shape=(16, 16), ori_shape=(16, 16))]
        assert torch.equal(model.encode_decode(images, metas), loaded.encode_decode(images, metas))


def test_card_states_what_is_known(tmp_path):
    """A card without metrics says so instead of inventing them."""
    tower = tiny_tower()
    tower.save_pretrained(tmp_path / "plain")
    card = (tmp_path / "plain" / CARD_FILE).read_text()
    assert "Not evaluated" in card and "## License\n\nNot stated." in card and "## Training data\n\nNot stated." in card
    tower.model_card = dict(data="`CocoDataset`", metrics={"coco/bbox_mAP": 0.378}, license="apache-2.0")
    tower.save_pretrained(tmp_path / "known")
    card = huggingface_hub.ModelCard((tmp_path / "known" / CARD_FILE).read_text())
    assert card.data.license == "apache-2.0" and card.data.library_name == "pe_dense"
    assert "| coco/bbox_mAP | 0.378 |" in card.text and "Not" not in card.text
    assert "model = PETower.from_pretrained" in card.text


def test_folders_are_not_overwritten(tmp_path):
    tower = tiny_tower()
    tower.save_pretrained(tmp_path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        tower.save_pretrained(tmp_path)
    tower.save_pretrained(tmp_path, overwrite=True)


def nested(depth):
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(type="pe_dense.MaskRCNN"), "contains a pe_dense.MaskRCNN"),
        (dict(arguments=dict(arch=dict(type="subprocess.Popen"))), "names the class 'subprocess.Popen'"),
        (dict(arguments=dict(init_cfg=dict(checkpoint="/etc/passwd"))), "names other files by init_cfg"),
        (dict(arguments=dict(arch="PE-Nonsense")), "does not describe a pe_dense.PETower"),
        (dict(arguments=[]), "was not written by pe_dense"),
        (dict(arguments=dict(arch=dict(ARCH, mlp_ratio=-1))), "does not describe a pe_dense.PETower: Trying to create"),
        (dict(arguments=dict(arch=dict(ARCH, heads=0))), "does not describe a pe_dense.PETower: integer modulo"),
        (dict(classes="cat"), "classes of config.json are not a list of names"),
        (dict(classes=[["cat"]]), "classes of config.json are not a list of names"),
        (dict(arguments=dict(arch=nested(700))), "nested too deeply|does not describe"),
    ],
)
def test_invalid_configs(tmp_path, change, message):
    """Nothing but this package's, mmdet's and mmseg's classes is built, and no other file is opened."""
    tower = tiny_tower()
    tower.save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        type(tower).from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"type": 1}'])
def test_invalid_json(tmp_path, content):
    (tmp_path / CONFIG_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match="is not valid JSON|was not written by pe_dense"):
        PETower.from_pretrained(tmp_path)


def test_weights_of_another_model(tmp_path):
    tower = tiny_tower()
    tower.save_pretrained(tmp_path)
    state = tower.state_dict()
    state["other.weight"] = state.pop("conv1.weight")
    write_safetensors(tmp_path / WEIGHTS_FILE, state)
    with pytest.raises(CheckpointError, match="conv1.weight"):
        PETower.from_pretrained(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes((tmp_path / WEIGHTS_FILE).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="model.safetensors"):
        PETower.from_pretrained(tmp_path)


def test_missing_files(tmp_path):
    tower = tiny_tower()
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        type(tower).from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="neither a folder nor the name"):
        type(tower).from_pretrained("a/b/c")


class Hub(BaseHTTPRequestHandler):
    """The few requests of an upload and a download, for one repository."""

    files: dict[str, bytes] = {}
    created: list[dict] = []
    commit = "0" * 40

    def log_message(self, *_):
        pass

    def _answer(self, content, headers=(), status=200):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != "Bearer hf_test":
            self._answer(dict(error="Invalid token"), status=401)
        elif self.path.endswith("/repos/create"):
            self.created.append(json.loads(body))
            self._answer(dict(url=f"{self.server.url}/owner/model", name="owner/model", id="1"))
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._answer(
                dict(files=[dict(path=name, uploadMode="regular", shouldIgnore=False, oid=None) for name in names])
            )
        elif "/commit/" in self.path:
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    self.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            self._answer(dict(commitUrl=f"{self.server.url}/owner/model/commit/{self.commit}", commitOid=self.commit))
        else:
            self._answer(dict(errors=[]))

    def do_GET(self):
        name = self.path.rpartition("/")[2].partition("?")[0]
        if "/resolve/" not in self.path:
            self._answer(dict(id="owner/model", sha=self.commit, siblings=[]))
        elif name not in self.files:
            self._answer(dict(error="Entry not found"), [("X-Error-Code", "EntryNotFound")], 404)
        else:
            headers = [("ETag", f'"{name}"'), ("X-Repo-Commit", self.commit), ("Accept-Ranges", "bytes")]
            self._answer(self.files[name], headers)

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    Hub.files.clear()
    Hub.created.clear()
    yield server
    server.shutdown()
    server.server_close()


def test_push_and_pull(hub, tmp_path):
    tower = tiny_tower(window_size=2, global_blocks=(1,), pos_embed="tile")
    tower.push_to_hub("owner/model", token="hf_test")
    assert Hub.created[0]["name"] == "model"
    assert set(Hub.files) >= {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE}
    (tmp_path / "pushed.safetensors").write_bytes(Hub.files[WEIGHTS_FILE])
    assert load_file(tmp_path / "pushed.safetensors").keys() == tower.state_dict().keys()
    loaded = type(tower).from_pretrained("owner/model", cache_dir=tmp_path / "cache")
    assert_same(tower, loaded)
    assert loaded.transformer.window_size == 2
    del Hub.files[WEIGHTS_FILE]
    with pytest.raises(FileNotFoundError, match="has no model.safetensors"):
        type(tower).from_pretrained("owner/model", cache_dir=tmp_path / "other")


def test_uploads_that_fail(hub, monkeypatch):
    """One line that says what to do, without a traceback."""
    tower = tiny_tower()
    with pytest.raises(InputError, match="a/b/c is not the name <owner>/<repo>"):
        tower.push_to_hub("a/b/c")
    with pytest.raises(UserError, match="the hub did not take owner/model: .*401.* HF_TOKEN"):
        tower.push_to_hub("owner/model", token="hf_wrong")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the hub did not take owner/model: .*refused"):
        tower.push_to_hub("owner/model", token="hf_test")
