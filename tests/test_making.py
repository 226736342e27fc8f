from __future__ import annotations

import numpy as np
import pytest
import torch

from demo.make import RECIPE, Choice, choices, read_order, verdicts
from diffusion.reader import AttributeReader, ReaderNetwork

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
    return AttributeReader(network, LABELS)


def test_an_order_becomes_one_request_of_consecutive_seeds():
    order = read_order(LABELS, {"glasses": 2}, seed="7", count=3, guidance="1,5")
    request = order.request("shipped")
    assert request.seeds == (7, 8, 9)
    assert (request.labels, request.guidance) == ((-1, -1, 2), 1.5)
    assert request.recipe == RECIPE


def test_what_is_left_out_is_open_and_a_model_without_labels_takes_no_wishes():
    assert read_order(LABELS, {}).wishes == (-1, -1, -1)
    assert read_order(LABELS, {"skin": "-1"}).wishes == (-1, -1, -1)
    assert read_order({}, {}).request("m").labels is None
    with pytest.raises(ValueError, match="takes no wishes"):
        read_order({}, {"glasses": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"wishes": {"tail": 1}},
        {"wishes": {"glasses": 3}},
        {"wishes": {"glasses": -2}},
        {"wishes": {"glasses": 1.5}},
        {"wishes": {"glasses": True}},
        {"wishes": {"glasses": "9" * 5000}},
        {"wishes": {"glasses": None}},
        {"wishes": {}, "seed": -1},
        {"wishes": {}, "count": 0},
        {"wishes": {}, "count": 65},
        {"wishes": {}, "guidance": "strong"},
        {"wishes": {}, "guidance": float("nan")},
        {"wishes": {}, "guidance": 1e9},
    ],
    ids=str,
)
def test_an_order_that_cannot_be_is_refused_in_one_sentence(wrong):
    with pytest.raises(ValueError, match=r"^[^\n]{1,120}\.$"):
        read_order(LABELS, **wrong)


def test_choices_have_words_and_colours():
    found = choices(LABELS, PALETTE)
    assert found["skin"] == [
        Choice(-1, "any"),
        Choice(0, "tone 1 of 2", "#fbdbd1"),
        Choice(1, "tone 2 of 2", "#603d30"),
    ]
    assert found["hair_color"][2:] == [Choice(1, "dark brown", "#5b331c"), Choice(2, "bald")]
    assert [choice.colour for choice in found["glasses"]] == [None] * 4


def test_only_what_was_asked_is_judged_and_everything_seen_is_said():
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    order = read_order(LABELS, {"hair_color": 1, "glasses": 0}, count=2)
    first, second = verdicts(order, pixels, always(0, 1, 2))
    assert first == second
    assert first.granted == {"hair_color": True, "glasses": False}
    assert first.words == "Face: skin tone 1 of 2, dark brown hair, dark glasses."


def test_a_face_without_hair_is_not_said_to_have_bald_hair():
    order = read_order(LABELS, {}, count=1)
    [verdict] = verdicts(order, np.zeros((1, 16, 16, 3), np.uint8), always(1, 2, 0))
    assert verdict.words == "Face: skin tone 2 of 2, bald, no glasses."
    assert verdict.granted == {}
