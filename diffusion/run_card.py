"""The model card of a run as it stands: what it is, what it learned from, and how."""

from __future__ import annotations

from diffusion.data import Source
from diffusion.model import DiffusionModel
from diffusion.unet import parameter_count


def run_card(
    model: DiffusionModel, images: int, seconds: float, source: Source | None = None
) -> str:
    """The README.md beside the weights, in the Hub's conventions."""
    size, training = model.shape[1], model.training
    licence = source.licence_id if source else "other"
    learned = (
        f"[{source.name}]({source.url}) by {source.author}, {source.licence}. {source.note}"
        if source
        else "Its owner's pictures; whoever shares the model states their origin and licence here."
    )
    start = training.get("start")
    begun = f"the weights of {start}" if start else "nothing"
    if before := training.get("seen_before"):
        begun += f", which had seen {before:,} images"
    return f"""---
license: {licence}
library_name: cartoon-diffusion
pipeline_tag: unconditional-image-generation
tags: [diffusion, ddpm, ddim]
---

# A diffusion model of {size}×{size} pictures

{parameter_count(model.network) / 1e6:.1f} M weights, made with Cartoon Diffusion. Draw with it:
`python -m diffusion sample --model . --steps 20 --count 16 --out samples.png`

## Data

{learned}

## Training

Begun from {begun}; {images:,} images seen in {seconds / 60:.1f} minutes. Batch
{training.get("batch")}, learning rate {training.get("lr"):g}, average of weights
{training.get("ema"):g}, {training.get("precision")}, prediction {model.prediction}, seed
{training.get("seed")}.
"""
