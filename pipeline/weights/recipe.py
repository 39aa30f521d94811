"""What `make weights` makes, and of what: every number that decides the bundled weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from generation.train import DetectorRecipe
from generation.train.autoencoder import AutoencoderRecipe
from generation.train.calibrate import CalibrationRecipe
from generation.train.decoder import DecoderRecipe
from generation.train.distil import DistilRecipe
from generation.train.generator import GeneratorRecipe
from generation.train.regressor import RegressorRecipe
from generation.train.tune import TuningRecipe
from pipeline.weights.regressor import RegressorOrder
from pipeline.weights.renders import BLOCK
from recognition.augment import Augment
from recognition.margins import CosFace
from recognition.train import Recipe
from recognition.train.recipe import settings


def embedder_recipe(backbone: str, seed: int) -> Recipe:
    return Recipe(
        backbone=backbone,
        margin=CosFace(margin_cosine=0.2, scale=24.0),  # ArcFace 0.4 at scale 32 stood still for its first epoch
        epochs=14,
        batch_size=128,
        peak_lr=2e-3,
        optimizer="adamw",
        weight_decay=5e-2,
        schedule="cosine",
        warmup_epochs=1,
        precision="bf16",
        seed=seed,
        threads=1,
    )


def polish(recipe: Recipe) -> Recipe:
    """A second, gentler training that begins with the first: a wider margin, and augmentation close to none."""
    # The renders have low resolution, blur and glasses of their own.
    augment = Augment(
        shift_px=1.0,
        scale=0.02,
        rotate_deg=2.0,
        brightness=0.1,
        contrast=0.15,
        low_resolution=0.05,
        blur=0.05,
        erase=0.05,
    )
    margin = CosFace(margin_cosine=0.3, scale=24.0)
    return replace(recipe, margin=margin, augment=augment, epochs=6, peak_lr=1e-3, warmup_epochs=0.5)


def autoencoder_recipe() -> AutoencoderRecipe:
    """Of eight channels: four, at a side of 14, leave an eye with a handful of numbers.

    At a fifth and a quarter of a cycle a pixel, what four keep coheres with the renders by 0.65 and 0.41, what eight
    keep by 0.77 and 0.59 (benchmarks/results/gap_2026-11-28.md).
    """
    return AutoencoderRecipe(steps=5000, latent_channels=8)


def denoiser_recipe() -> GeneratorRecipe:
    """Told all that it will be told, and looked at by nobody: who and what its pictures show is the tuning's to teach.

    What terms had taught a denoiser was gone after 2,400 steps without them, and was back after its tuning
    (benchmarks/results/generator_2026-11-28.md).
    """
    return GeneratorRecipe(
        identity_term="none",
        attribute_weight=0.0,
        identity_open=0.05,
        attributes_open=0.05,
        attribute_open=0.05,
        cross_pairs=0.8,
        cross_mean=5,
    )


def tuning_rounds() -> tuple[TuningRecipe, ...]:
    """Each begins with a high learning rate anew: terms had fallen as long as the rate of the first was high.

    After the first alone smiles were weak (rank correlation 0.51), after the second people a little (AUC of own versus
    other 0.9940), so the third looks hardest at who is shown: 0.9951, mean of three draws of people
    (benchmarks/results/weights_from_nothing_2026-11-29.md).
    """
    second = TuningRecipe(steps=2400, peak_lr=3e-4, identity_weight=1.5, attribute_weight=0.18, seed=43)
    third = replace(second, steps=2000, identity_weight=3.0, attribute_weight=0.15, seed=47)
    return TuningRecipe(), second, third


@dataclass(frozen=True)
class GeneratorOrder:
    """What the bundled generator is made from.

    Attributes:
        people: Of its own, in blocks of 25.
        pictures: Photographs of each.
        held_out: The last of them, who are not trained on but looked at in contact sheets.
        seed: Of people and photographs.
        autoencoder: How the autoencoder is trained.
        reader: How the regressor is trained that the denoiser learns from.
        denoiser: How the denoiser is trained.
        student: How its guidance is put into one pass; None where it needs none. An identity term that has been learnt
            long enough leaves nothing for guidance to do: with it people were no more themselves and all pictures
            farther from renders.
        decoder: How the decoder is trained again, on what the denoiser leaves.
        tuning: How the denoiser learns from pictures that it draws itself, with that decoder: in rounds, one after
            another; none for not at all.
        calibration: How it is found out how strongly the model is to be told what is asked for.
    Raises:
        ValueError: If a number is out of range.
    """

    people: int = 8000
    pictures: int = 6
    held_out: int = 100
    seed: int = 2026
    autoencoder: AutoencoderRecipe = field(default_factory=autoencoder_recipe)
    reader: RegressorRecipe = field(default_factory=lambda: RegressorRecipe(steps=3000, seed=29))
    denoiser: GeneratorRecipe = field(default_factory=denoiser_recipe)
    student: DistilRecipe | None = None
    decoder: DecoderRecipe = field(default_factory=lambda: DecoderRecipe(steps=600))
    tuning: tuple[TuningRecipe, ...] = field(default_factory=tuning_rounds)
    calibration: CalibrationRecipe = field(default_factory=CalibrationRecipe)

    def __post_init__(self) -> None:
        if self.people < BLOCK or self.people % BLOCK:
            raise ValueError(f"people: expected a positive multiple of {BLOCK}, got {self.people}")
        if self.pictures < 1:
            raise ValueError(f"pictures: expected at least 1, got {self.pictures}")
        if not 1 <= self.held_out < self.people:
            raise ValueError(f"held_out: expected 1 to {self.people - 1}, got {self.held_out}")
        if self.student is not None and self.tuning:
            raise ValueError(
                "tuning: expected none beside a student, who is told a guidance that drawings have none of"
            )


@dataclass(frozen=True)
class WeightsRecipe:
    """What `make weights` makes.

    Attributes:
        people: How many people the measuring models are trained on.
        pictures: Photographs of each.
        detector_people: The first people whose whole pictures train the detector.
        held_out: People for the detector's errors and the thresholds.
        protocol_pairs: Pairs of each protocol that the embedders are scored on.
        seed: Of the measuring models.
        regressor: What the attributes of a picture are read by.
        generator: The generator, from people of its own.
    Raises:
        ValueError: If the regressor that the generator learns from is born as the one that certifies it.
    """

    people: int = 4000
    pictures: int = 12
    detector_people: int = 1500
    held_out: int = 200
    protocol_pairs: int = 2000
    seed: int = 20_26
    detector: DetectorRecipe = field(default_factory=lambda: DetectorRecipe(steps=4500, threads=1))
    embedder_a: Recipe = field(default_factory=lambda: embedder_recipe("residual_a", seed=1))
    embedder_b: Recipe = field(default_factory=lambda: embedder_recipe("plain_b", seed=2))
    regressor: RegressorOrder = field(default_factory=RegressorOrder)
    generator: GeneratorOrder = field(default_factory=GeneratorOrder)

    def __post_init__(self) -> None:
        if self.generator.reader.seed == self.regressor.training.seed:
            raise ValueError(
                "generator.reader.seed: expected another than regressor.training.seed, as what a generator learns from "
                f"may not certify it, got {self.generator.reader.seed} for both"
            )

    @property
    def measuring(self) -> dict[str, Any]:
        """All that decides the measuring models, the second training of the embedders included."""
        told = asdict(self) | {
            "embedder_a": settings(self.embedder_a),
            "embedder_b": settings(self.embedder_b),
            "polish_of_embedder_a": settings(polish(self.embedder_a)),
        }
        for name in ("regressor", "generator"):  # which have folders and claims of their own
            del told[name]
        return told
