"""The Make screen's server side: faces on request, and whether they came as asked."""

from __future__ import annotations

import base64
import html
import json

import numpy as np
import pytest
import torch
from stand_ins import awaited, randomised
from test_backend import CAPACITY

from demo import wording_make
from demo.backend import LocalBackend
from demo.make import shown
from demo.making import Choice, Maker, choices
from demo.models import CHECKPOINTS, OWN, Models
from demo.notices import _asked_for
from demo.service import Service
from demo.settings import RECIPE, read_order
from demo.trainings import Trainings
from demo.verdicts import verdicts
from diffusion import DiffusionModel, Schedule, UNetConfig
from diffusion.finish import crisp
from diffusion.pictures import from_uint8, to_uint8
from diffusion.reader import AttributeReader, ReaderNetwork

pytestmark = pytest.mark.usefixtures("in_a_hurry")

LABELS = {
    "skin": ("fbdbd1", "603d30"),
    "hair_color": ("black", "darkbrown", "bald"),
    "glasses": ("none", "clear/tinted", "dark"),
}
PALETTE = {"skin": ("fbdbd1", "603d30"), "hair_color": ("1e1514", "5b331c", None)}


def always(*answers: int) -> AttributeReader:
    """A reader that sees the same in every picture."""
    network = ReaderNetwork(sum(map(len, LABELS.values()))).eval()
    torch.nn.init.zeros_(network.head.weight)
    bias = torch.cat(
        [
            torch.nn.functional.one_hot(torch.tensor(answer), len(values)).float()
            for answer, values in zip(answers, LABELS.values(), strict=True)
        ]
    )
    with torch.no_grad():
        network.head.bias.copy_(bias)
    return AttributeReader(network, LABELS, palette=PALETTE)


def labelled() -> DiffusionModel:
    """A small random network that can be asked for LABELS."""
    torch.manual_seed(0)
    network = randomised(UNetConfig(size=16, widths=(16,), labels=tuple(map(len, LABELS.values()))))
    return DiffusionModel(network, Schedule.cosine(), labels=LABELS)


@pytest.fixture(scope="module")
def service():
    backend = LocalBackend(labelled(), CAPACITY)
    yield Service(backend)
    backend.close()


@pytest.fixture
def maker(service, tmp_path):
    """A Maker whose faces are read by the reader that is given."""

    def make(reader=None):
        models = Models(service.backend, Trainings(tmp_path), reader, checkpoints=tmp_path)
        return Maker(service, models)

    return make


def made(maker, **fields):
    """The messages of one press of Make."""

    async def watch():
        return [message async for message in maker.run(fields)]

    return awaited(watch())


def test_an_order_is_a_comparison_with_one_pane_of_sixteen_faces():
    order = read_order(LABELS, {"asked": "-.-.2", "seed": "7", "guidance": "1,5"})
    assert (order.recipes, order.faces, list(order.seeds)[:2]) == ((RECIPE,), 16, [7, 8])
    assert (order.asked, order.guidance) == ((-1, -1, 2), 1.5)


def test_a_page_that_begins_with_another_model_says_so_and_still_offers_the_shipped_one(
    service, tmp_path
):
    toons = CHECKPOINTS / "toons-64"
    models = Models(service.backend, Trainings(tmp_path), own=str(toons))
    assert models.offers[OWN].title == wording_make.MODELS["toons-64"]
    assert "DiceBear" in models.offers[OWN].credit
    assert set(models.offers) == {OWN, "cartoonset-64"}


def test_a_model_that_tells_of_no_labels_is_offered_without_wishes(service, tmp_path):
    folder = DiffusionModel(
        randomised(UNetConfig(size=16, widths=(16,))), Schedule.cosine()
    ).save_pretrained(tmp_path / "plain")
    config = json.loads((folder / "config.json").read_text())
    config.pop("labels", None)
    (folder / "config.json").write_text(json.dumps(config))
    models = Models(service.backend, Trainings(tmp_path / "runs"), checkpoints=tmp_path)
    assert "plain" in models.offers
    assert models.labels("plain") == {}


def test_guidance_means_nothing_when_nothing_is_asked():
    assert read_order(LABELS, {"guidance": "5"}) == read_order(LABELS, {})
    assert read_order({}, {}).guidance == 1


def test_the_last_message_tells_of_every_face_whether_it_came_as_asked(maker):
    messages = made(maker(always(0, 1, 2)), asked="-.1.0")
    assert [message["type"] for message in messages[:3]] == ["aside", "start", "frame"]
    *others, last = messages
    assert last["done"]
    assert not any("verdicts" in message for message in others)
    assert len(last["verdicts"]) == 16
    assert last["verdicts"][3] == {
        "words": "Face: skin tone 1 of 2, dark brown hair, dark glasses.",
        "granted": {"Hair": True, "Glasses": False},
    }
    assert last["words"].endswith("0 of 16 faces came as asked.")


def test_faces_whose_reel_had_to_leave_are_shown_without_verdicts(service, maker, monkeypatch):
    monkeypatch.setattr(service.reels, "get", lambda run: None)
    last = made(maker(always(0, 1, 2)), asked="-.1.0")[-1]
    assert last["done"]
    assert last["stills"]
    assert "verdicts" not in last


def test_a_face_that_was_asked_for_is_another_than_one_that_was_not(service, maker):
    open_, asked = (made(maker(), asked=asked)[-1]["run"] for asked in ("", "1.2.2"))
    first, second = (service.reels.get(run).last[0].x.astype(int) for run in (open_, asked))
    assert np.abs(first - second).max() > 0


def test_compare_draws_the_same_face_when_it_is_given_the_same_wishes(service, maker):
    last = made(maker(), asked="1.-.2", seed="5", guidance="3")[-1]
    sixteen = service.reels.get(last["run"]).last[0].x

    async def compare():
        fields = {"seed": "8", "faces": 1, "asked": "1.-.2", "guidance": "3", "left_steps": "2"}
        fields["finish"] = "crisp"  # as Make is unless told otherwise
        return [message async for message in service.run(fields)]

    [alone] = service.reels.get(awaited(compare())[-1]["run"]).last[1].x
    assert np.abs(alone.astype(int) - sixteen[3]).max() <= 2


def test_faces_are_crisp_unless_they_shall_stay_as_the_sampler_leaves_them(service, maker):
    def faces(**fields):
        return service.reels.get(made(maker(), seed="5", **fields)[-1]["run"]).last[0].x

    plain, ours = faces(finish="").astype(int), faces().astype(int)
    expected = to_uint8(crisp(from_uint8(plain.astype(np.uint8)))).astype(int)
    assert np.abs(ours - expected).mean() < 1 < np.abs(ours - plain).mean()


def test_nobody_judges_faces_that_the_reader_does_not_know(maker):
    stranger = AttributeReader(ReaderNetwork(2).eval(), {"hat": ("no", "yes")})
    for reader in (None, stranger):
        assert "verdicts" not in made(maker(reader), asked="-.1.0")[-1]


@pytest.mark.parametrize("fields", [{}, {"seed": "much"}, {"model": "../x"}], ids=str)
def test_an_order_is_heard_before_anything_else_and_every_message_names_its_press(maker, fields):
    async def watch():
        return [message async for message in maker().answers({**fields, "press": 3})]

    messages = awaited(watch())
    assert messages[0] == {"type": "heard", "press": 3}
    assert len(messages) > 1
    assert {message["press"] for message in messages} == {3}


def test_a_press_that_is_no_number_names_none(maker):
    async def heard():
        answers = maker().answers({"press": ["x"]})
        return await anext(answers)

    assert awaited(heard()) == {"type": "heard", "press": 0}


@pytest.mark.parametrize(
    "wrong",
    [{"asked": "1"}, {"seed": "-1"}, {"guidance": "strong"}, {"asked": ["x"]}, {"model": "../x"}],
    ids=str,
)
def test_an_order_that_cannot_be_costs_no_call(service, maker, wrong):
    before = service.backend.engine.network_calls
    [problem] = made(maker(), **wrong)
    assert problem["type"] == "problem"
    assert service.backend.engine.network_calls == before


def test_another_shipped_model_is_offered_with_its_own_wishes(service, maker, tmp_path):
    other = {"style": ("plain", "odd")}
    network = randomised(UNetConfig(size=16, widths=(16,), labels=(2,)), seed=1)
    DiffusionModel(network, Schedule.cosine(), labels=other).save_pretrained(tmp_path / "toons")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    models = maker().models
    both = Maker(Service(service.backend, models.folder), models)
    assert list(both.models.offers) == ["", "toons"]
    last = made(both, model="toons", asked="1")[-1]
    assert last["done"]
    reel = both.service.reels.get(last["run"])
    assert (reel.comparison.model, reel.comparison.fields()["model"]) == ("toons", "toons")
    assert reel.weights != service.backend.weights
    assert made(both, model="toons", asked="1.-.-")[0]["type"] == "problem"


def test_a_png_of_one_face_is_drawn_again_in_compare(service, maker):
    run = made(maker(), asked="0.0.-", seed="40")[-1]["run"]
    file = awaited(service.keep({"run": run, "kind": "png", "face": 2}))
    content = base64.b64decode(file["uri"].split(",")[1])
    given = awaited(service.read({"png": base64.b64encode(content).decode()}))
    assert (given["fields"]["asked"], given["fields"]["seed"]) == ("0.0.-", "40")

    async def replay():
        return [message async for message in service.replay({"token": given["token"]})]

    assert awaited(replay())[-1]["words"].startswith(("Replay: identical", "Replay: same picture"))


def test_what_guidance_costs_is_told_as_it_is():
    hint = wording_make.SCREEN["guidance_hint"]
    assert "2 insists and costs twice the work a step" in hint
    assert "two calls" not in hint


@pytest.mark.parametrize("nothing", ["-.-.-", "-", "..", " "])
def test_a_notice_of_wishes_without_any_says_that_nothing_is_asked(maker, nothing):
    words = _asked_for(maker().models, {"asked": nothing, "guidance": "2", "model": ""})
    assert words == "Nothing is asked for: every attribute is left open."
    some = _asked_for(maker().models, {"asked": "-.1.-", "guidance": "2", "model": ""})
    assert some == "Asked for: dark brown hair; guidance 2."


def test_choices_have_words_and_colours():
    found = choices(LABELS, PALETTE)
    assert found["skin"] == [
        Choice("", "any"),
        Choice("0", "tone 1 of 2", "#fbdbd1"),
        Choice("1", "tone 2 of 2", "#603d30"),
    ]
    assert found["hair_color"][2:] == [Choice("1", "dark brown", "#5b331c"), Choice("2", "bald")]
    assert [choice.colour for choice in found["glasses"]] == [None] * 4


def test_colours_that_are_names_need_no_palette():
    assert choices({"skin": LABELS["skin"]}, {})["skin"][1].colour == "#fbdbd1"


def test_only_what_was_asked_is_judged_and_everything_seen_is_said():
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    first, second = verdicts((-1, 1, 0), pixels, always(0, 1, 2))
    assert first == second
    assert first.granted == {"hair_color": True, "glasses": False}
    assert first.words == "Face: skin tone 1 of 2, dark brown hair, dark glasses."


def test_a_face_without_hair_is_not_said_to_have_bald_hair():
    [verdict] = verdicts((), np.zeros((1, 16, 16, 3), np.uint8), always(1, 2, 0))
    assert verdict.words == "Face: skin tone 2 of 2, bald, no glasses."
    assert verdict.granted == {}


def test_nothing_in_the_names_of_labels_is_code_where_gradio_compiles_them():
    words = shown("a`b ${eval(1)} {{each}} \\ <i>")
    assert not set(words) & set("`${}\\<>")
    assert html.unescape(words) == "a`b ${eval(1)} {{each}} \\ <i>"
