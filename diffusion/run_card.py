"""The model card of a run as it stands: what it is, what it learned from, and how."""

from __future__ import annotations

from collections.abc import Sequence

from diffusion.model import DiffusionModel
from diffusion.sources import Source, licence_id
from diffusion.train_config import learned_from
from diffusion.unet import parameter_count

PROJECT = "Cartoon Diffusion"
MODEL = "MODEL"  # in a command, where a model is that has no place of its own


def run_card(model: DiffusionModel, images: int, seconds: float) -> str:
    """The README.md beside the weights, in the Hub's conventions."""
    size, training = model.shape[1], model.training
    own, sources = training.get("source"), learned_from(training)
    source = Source(**own) if own else None
    before = [one for one in sources if one != source]
    learned = (
        f"{source.credit}. {source.note}"
        if source
        else "Its owner's pictures; whoever shares the model states their origin and licence here."
    )
    if before:
        learned += f"\n\n{begun_with(before)}"
    start = training.get("start")
    begun = f"the weights of {start}" if start else "nothing"
    if seen := training.get("seen_before"):
        begun += f", which had seen {seen:,} images"
    return f"""{front_matter(licence_id(sources) if source else "other")}

# A diffusion model of {size}×{size} pictures

{parameter_count(model.network) / 1e6:.1f} M weights, made with {PROJECT}. In that project's
folder, this draws with it; {MODEL} stands for this model's folder:
`python -m diffusion sample --model {MODEL} --steps 20 --count 16 --out samples.png`

## Data

{learned}

## Training

Begun from {begun}; {images:,} images seen in {seconds / 60:.1f} minutes. Batch
{training.get("batch")}, learning rate {training.get("lr"):g}, average of weights
{training.get("ema"):g}, {training.get("precision")}, prediction {model.prediction}, seed
{training.get("seed")}.
"""


def front_matter(licence: str) -> str:
    """What the Hub reads at the top of a card."""
    return f"""---
license: {licence}
library_name: cartoon-diffusion
pipeline_tag: unconditional-image-generation
tags: [diffusion, ddpm, ddim]
---"""


def begun_with(sources: Sequence[Source]) -> str:
    """What a card says of the pictures that the weights a model began with learned from."""
    credits = "; ".join(source.credit for source in sources)
    return f"It began with weights that had learned from {credits}. Name them as well."
