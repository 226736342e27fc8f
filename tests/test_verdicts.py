"""Faces are judged by what was asked, in whichever order a reader knows the attributes."""

from __future__ import annotations

import pytest
import torch
from stand_ins import awaited, randomised
from test_backend import CAPACITY

from demo.backend import LocalBackend
from demo.making import Maker
from demo.models import Models
from demo.service import Service
from demo.trainings import Trainings
from diffusion import DiffusionModel, Schedule, UNetConfig
from diffusion.reader import AttributeReader, ReaderNetwork

LABELS = {"hair_color": ("black", "brown", "bald"), "glasses": ("none", "clear", "dark")}
KNOWN = {**LABELS, "hat": ("none", "cap")}  # by a reader


def always(**answers: int) -> AttributeReader:
    """A reader that sees the same in every picture, its attributes in the order given."""
    labels = {name: KNOWN[name] for name in answers}
    network = ReaderNetwork(sum(map(len, labels.values()))).eval().requires_grad_(False)
    network.head.weight.zero_()
    wanted = [torch.eye(len(KNOWN[name]))[answer] for name, answer in answers.items()]
    network.head.bias.copy_(torch.cat(wanted))
    return AttributeReader(network, labels, {"hair_color": 0.5, "glasses": 1.0})


@pytest.fixture(scope="module")
def backend():
    network = randomised(UNetConfig(size=16, widths=(16,), labels=(3, 3)))
    backend = LocalBackend(DiffusionModel(network, Schedule.cosine(), labels=LABELS), CAPACITY)
    yield backend
    backend.close()


@pytest.mark.parametrize(
    "reader",
    [
        always(hair_color=1, glasses=2),
        always(glasses=2, hair_color=1),
        always(hat=1, glasses=2, hair_color=1),
    ],
    ids=["as the model", "the other way round", "more than the model"],
)
def test_a_reader_may_know_more_than_the_model_and_in_another_order(backend, tmp_path, reader):
    maker = Maker(
        Service(backend), Models(backend, Trainings(tmp_path), reader, checkpoints=tmp_path)
    )

    async def made():
        return [message async for message in maker.run({"asked": "1.0"})]

    last = awaited(made())[-1]
    assert last["verdicts"][0] == {
        "words": "Face: brown hair, dark glasses.",
        "granted": {"Hair": True, "Glasses": False},
    }
