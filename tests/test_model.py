from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from stand_ins import randomised

from diffusion import DiffusionModel, ModelError, Schedule, UNetConfig
from diffusion.model import FP16_ABOVE, read_config, weights_hash
from diffusion.unet import UNet, parameter_count

LABELS = {"hair": ["black", "red", "grey"], "glasses": ["no", "yes"]}
LABELLED = UNetConfig(size=16, widths=(16, 32), labels=(3, 2))
ONE_SENTENCE = r"^[^\n]+$"


@pytest.fixture
def model() -> DiffusionModel:
    return DiffusionModel(
        randomised(LABELLED), Schedule.linear(100), "eps", LABELS, {"images": 12, "lr": 1e-3}
    )


@pytest.fixture
def folder(model, tmp_path) -> Path:
    return model.save_pretrained(tmp_path / "model")


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: v for key, v in config.items() if v != "left out"}))


def test_a_saved_model_comes_back_the_same(model, folder):
    again = DiffusionModel.from_pretrained(folder)
    assert (again.schedule, again.prediction) == (model.schedule, model.prediction)
    assert (again.labels, again.training) == (model.labels, model.training)
    assert again.shape == model.shape == (3, 16, 16)
    for name, value in model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 70])
    labels = torch.tensor([[0, -1], [2, 1]])
    with torch.no_grad():
        torch.testing.assert_close(
            again.denoiser(labels, guidance=2.0)(x, t), model.denoiser(labels, guidance=2.0)(x, t)
        )


def test_a_loaded_model_is_ready_to_sample(folder):
    network = DiffusionModel.from_pretrained(str(folder)).network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_the_folder_says_what_is_in_it(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == "cartoon-diffusion/1"
    assert config["image"] == {"size": 16, "channels": 3}
    assert config["labels"] == LABELS
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_saving_what_was_loaded_changes_nothing(folder, tmp_path):
    again = DiffusionModel.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert weights_hash(again) == weights_hash(folder)


def test_large_models_are_stored_in_half_precision_and_small_ones_in_full(folder, tmp_path):
    large = randomised(UNetConfig(size=16, widths=(128, 256)))
    assert parameter_count(large) * 4 > FP16_ABOVE
    model = DiffusionModel(large, Schedule.cosine(10))
    stored = load_file(model.save_pretrained(tmp_path / "large") / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert {v.dtype for v in load_file(folder / "model.safetensors").values()} == {torch.float32}
    again = DiffusionModel.from_pretrained(tmp_path / "large").network.state_dict()
    for name, value in large.state_dict().items():
        assert again[name].dtype == torch.float32
        torch.testing.assert_close(again[name], value, atol=1e-4, rtol=1e-3)


def broken_json(folder):
    (folder / "config.json").write_text('{"format": "cartoon-dif')


def another_format(folder):
    edit(folder, format="cartoon-diffusion/99")


def a_list(folder):
    (folder / "config.json").write_text("[1, 2]")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def half_the_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty_weights(folder):
    (folder / "model.safetensors").write_bytes(b"")


def a_folder_of_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def weights_of_another_network(folder):
    other = randomised(UNetConfig(size=16, widths=(32, 32), labels=(3, 2)))
    save_file(other.state_dict(), folder / "model.safetensors")


def weights_with_a_tensor_missing(folder):
    state = load_file(folder / "model.safetensors")
    state.pop("stem.weight")
    save_file(state, folder / "model.safetensors")


def no_network(folder):
    edit(folder, network="left out")


def an_unknown_setting(folder):
    edit(folder, network={**LABELLED.to_json(), "depth": 3})


def an_absurd_network(folder):
    edit(folder, network={"size": 10**6})


def an_absurd_schedule(folder):
    edit(folder, schedule={"kind": "cosine", "T": 10**12})


def no_prediction(folder):
    edit(folder, prediction="left out")


def an_unknown_prediction(folder):
    edit(folder, prediction="score")


def labels_of_another_network(folder):
    edit(folder, labels={"hair": ["black"]})


def labels_that_are_none(folder):
    edit(folder, labels=[1, 2])


DAMAGE = [
    broken_json,
    another_format,
    a_list,
    no_weights,
    half_the_weights,
    empty_weights,
    a_folder_of_weights,
    weights_of_another_network,
    weights_with_a_tensor_missing,
    no_network,
    an_unknown_setting,
    an_absurd_network,
    an_absurd_schedule,
    no_prediction,
    an_unknown_prediction,
    labels_of_another_network,
    labels_that_are_none,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_folder_is_refused_in_one_sentence(folder, damage):
    DiffusionModel.from_pretrained(folder)
    damage(folder)
    with pytest.raises(ModelError, match=ONE_SENTENCE) as error:
        DiffusionModel.from_pretrained(folder)
    assert len(str(error.value)) < 500


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_is_never_opened(folder, tmp_path):
    trap = tmp_path / "opened"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(trap)))
    with pytest.raises(ModelError, match=ONE_SENTENCE):
        DiffusionModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(trap), folder / "model.pt")
    torch.save(Bomb(trap), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        DiffusionModel.from_pretrained(folder)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Bomb(trap)))
    assert trap.exists()  # the trap does work


def test_the_version_is_that_of_the_very_weights_that_were_loaded(folder, monkeypatch):
    before, first = weights_hash(folder), load_file(folder / "model.safetensors")
    load_state_dict = UNet.load_state_dict

    def replaced_meanwhile(network, state):
        save_file(randomised(LABELLED).state_dict(), folder / "model.safetensors")
        return load_state_dict(network, state)

    monkeypatch.setattr(UNet, "load_state_dict", replaced_meanwhile)
    model = DiffusionModel.from_pretrained(folder)
    assert model.version == before != weights_hash(folder)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, first[name])


def test_a_runs_folder_given_for_a_model_is_told_where_the_model_is(tmp_path, model):
    folder = tmp_path / "run"
    model.save_pretrained(folder / "model")
    (folder / "config.json").write_text('{"data": "toons", "images": 4}')
    with pytest.raises(ModelError, match=r"run is a run; its model is in \S+model$"):
        DiffusionModel.from_pretrained(folder)


@pytest.mark.parametrize("found", ["left out", "other-project/1", 7, "cartoon-diffusion/new"])
def test_a_model_of_another_project_is_not_taken_for_one_of_a_later_version(folder, found):
    edit(folder, format=found)
    with pytest.raises(ModelError, match="holds no model of Cartoon Diffusion; give one made"):
        DiffusionModel.from_pretrained(folder)
    edit(folder, format="cartoon-diffusion/99")
    with pytest.raises(ModelError, match=r"update the package$"):
        DiffusionModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0, 1, 2, 0]), r"^labels \(4,\) of torch.int64; give whole numbers"),
        (torch.zeros(4, 3, dtype=torch.int64), r"give whole numbers \(images, 2\), for hair, glas"),
        (torch.zeros(4, 2), "of torch.float32; give whole numbers"),
        ([[0, 1], [3, 0]], "^labels of hair from 0 to 3; choose 0 to 2, or -1 for any$"),
        (np.array([[0, -2]]), "^labels of glasses from -2 to -2; choose 0 to 1, or -1 for any$"),
    ],
)
def test_labels_that_the_model_does_not_know_are_refused(model, labels, said):
    with pytest.raises(ValueError, match=said):
        model.denoiser(labels)


@pytest.mark.parametrize("guidance", [-3, float("nan"), float("inf"), torch.tensor([1.0, -1.0])])
def test_a_guidance_that_is_none_is_refused(model, guidance):
    with pytest.raises(ValueError, match=r"^guidance .*; choose a number from 0 up$"):
        model.denoiser(guidance=guidance)


def test_labels_may_be_a_list_and_guidance_a_number_for_each_image(model):
    x, t, labels = torch.randn(2, 3, 16, 16), torch.tensor([3, 70]), [[0, -1], [2, 1]]
    with torch.no_grad():
        ours = model.denoiser(labels, torch.tensor([2.0, 2.0]), torch.tensor([True, True]))(x, t)
        plain = model.denoiser(torch.tensor(labels), 2.0)(x, t)
    torch.testing.assert_close(ours, plain)


def test_the_card_of_a_models_folder_is_uploaded_with_it(folder, monkeypatch):
    (folder / "README.md").write_text("license: cc-by-4.0")
    for name in ("samples.png", "reader.safetensors", "results.json"):
        (folder / name).write_text(f"the card shows {name}")
    (folder / "diary.txt").write_text("nobody's business")
    seen = {}

    class Api:
        def create_repo(self, *_, **__):
            pass

        def upload_folder(self, repo_id, folder_path):
            seen.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
            return "there"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    DiffusionModel.from_pretrained(folder).push_to_hub("me/faces")
    (folder / "diary.txt").unlink()
    assert seen == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "nowhere", "a/b/c", ""])
def test_a_path_without_a_model_is_refused_without_asking_the_hub(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(ModelError, match=r"^no model in .*config\.json, or a Hub name user/model$"):
        DiffusionModel.from_pretrained(name)


def test_a_hub_name_is_fetched_from_the_hub(folder, model, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, sorted(allow_patterns)))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert DiffusionModel.from_pretrained("somebody/faces").schedule == model.schedule
    assert asked == [("somebody/faces", ["config.json", "model.safetensors"])]


def test_without_a_network_connection_a_hub_name_gives_one_sentence(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_, **__):
        raise LocalEntryNotFoundError("cannot reach the Hub\nand more lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ModelError, match=r"^no model 'somebody/faces' here or on the Hub") as error:
        DiffusionModel.from_pretrained("somebody/faces")
    assert "\n" not in str(error.value)


def test_without_the_hubs_package_a_hub_name_gives_one_sentence(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"pip install huggingface_hub"):
        DiffusionModel.from_pretrained("somebody/faces")
    with pytest.raises(ModelError, match=r"pip install huggingface_hub"):
        model.push_to_hub("me/faces")


def test_push_to_hub_uploads_a_complete_folder(model, monkeypatch):
    seen = {}

    class Api:
        def create_repo(self, repo_id, exist_ok, private):
            seen["repo"] = (repo_id, exist_ok, private)

        def upload_folder(self, repo_id, folder_path):
            seen["schedule"] = DiffusionModel.from_pretrained(folder_path).schedule
            return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert model.push_to_hub("me/faces", private=True) == "https://huggingface.co/me/faces"
    assert seen == {"repo": ("me/faces", True, True), "schedule": model.schedule}


def test_labels_that_do_not_fit_the_network_are_refused():
    with pytest.raises(ModelError, match="labels have"):
        DiffusionModel(randomised(LABELLED), Schedule.cosine(10), labels={"hair": ["black"]})


def test_a_crash_while_saving_leaves_the_old_model(model, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def crash(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", crash)
    with pytest.raises(OSError, match="no space"):
        model.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def unreachable(monkeypatch):
    """The Hub behind a proxy that does not answer."""
    import httpx

    def refuse(*_, **__):
        raise httpx.ProxyError("503 Service Unavailable\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)


def test_a_hub_that_cannot_be_reached_is_one_sentence(model, unreachable):
    with pytest.raises(ModelError, match=r"here or on the Hub \(503 Service Unavailable\)$"):
        DiffusionModel.from_pretrained("somebody/faces")
    with pytest.raises(ModelError, match=r"^'me/faces' cannot be uploaded \(503 Service Unava"):
        model.push_to_hub("me/faces")


@pytest.mark.parametrize(
    ("prediction", "answers", "wanted"), [("dual", None, 7), ("dual", 6, 7), ("v", 7, 3)]
)
def test_a_network_that_answers_with_too_many_or_too_few_channels_is_refused(
    prediction, answers, wanted
):
    network = UNet(UNetConfig(size=16, widths=(16,), out_channels=answers))
    said = f"to predict {prediction} it takes {wanted}; set its out_channels to {wanted}$"
    with pytest.raises(ModelError, match=said):
        DiffusionModel(network, Schedule.cosine(10), prediction)


@pytest.mark.parametrize("part", ["network", "schedule", "image", "labels", "training"])
def test_a_part_of_the_config_that_is_no_object_is_named(folder, part):
    edit(folder, **{part: ["odd"]})
    with pytest.raises(ModelError, match=rf"has no object as its {part}; copy the model folder"):
        read_config(folder)
