"""Each disaster, made on purpose, is found; a healthy set and a healthy training are left in peace."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from generation.world import render, sample_people
from generation.world.attributes import attribute_table
from generation.world.scenes import training_attributes
from recognition.margins import AdaFace, ArcFace, CosFace
from recognition.train import CHECKPOINT, Pictures, load_trained, networks, train
from recognition.train.checks import above_chance, expected_loss, of_embeddings, of_labels, of_norm, of_pictures
from recognition.train.scan import scanned
from recognition.train.state import State
from stages.embed.align import crop
from tests.recognition.train.conftest import RECIPE, faces

ONCE = replace(RECIPE, epochs=1, warmup_epochs=0.0)


def names(findings):
    return [finding.name for finding in findings]


def found(data, tmp_path, recipe=ONCE):
    lines = []
    trained = train(data, recipe, tmp_path, say=lines.append)
    assert [line.removeprefix("warning: ") for line in lines] == [finding.said for finding in trained.findings]
    assert load_trained(tmp_path, recipe).findings == trained.findings
    return trained.findings


def test_a_healthy_set_raises_no_warning(people, tmp_path):
    assert found(people, tmp_path) == ()


@pytest.fixture(scope="module")
def many():
    """Enough pairs of one label to say something of all."""
    return faces(8, 20)


def test_many_healthy_pictures_raise_no_warning(many, tmp_path):
    assert found(Pictures(*many), tmp_path) == ()


def test_labels_shuffled_against_pictures_are_found(many, tmp_path):
    images, labels = many
    findings = found(Pictures(images, np.random.default_rng(1).permutation(labels)), tmp_path)
    assert "random_labels" in names(findings)
    assert "standard deviations, expected 3 or more" in findings[0].said


def test_blue_faces_are_taken_for_bgr_with_both_numbers(people, tmp_path):
    findings = found(Pictures(np.ascontiguousarray(people.images[..., ::-1]), people.labels), tmp_path)
    assert names(findings) == ["channel_order"]
    blue, red = people.images[:, 28:100, 28:84].mean((0, 1, 2))[[0, 2]]
    assert f"mean {blue:.0f}" in findings[0].said
    assert f"mean {red:.0f}" in findings[0].said


def test_a_picture_under_two_labels_is_found_with_its_rows(people, tmp_path):
    images = people.images.copy()
    images[33], images[34] = images[8], images[8]
    assert people.labels[[8, 33, 34]].tolist() == [0, 1, 2]
    assert scanned(images, people.labels, None).twins == ((8, 33), (8, 34))
    findings = found(Pictures(images, people.labels), tmp_path)
    assert names(findings) == ["two_labels"]
    assert "2 of 48 pictures are there again under another label, such as rows 8 and 33" in findings[0].said


def test_the_same_picture_twice_under_one_label_is_nobodys_fault(people):
    images = people.images.copy()
    images[4] = images[0]
    assert scanned(images, people.labels, None).twins == ()


def test_only_the_rows_that_are_trained_on_are_scanned(people):
    images = people.images.copy()
    images[33] = images[8]
    images[1] = 0
    assert scanned(images, people.labels[2:33], np.arange(2, 33)).twins == ()
    assert scanned(images, people.labels, np.arange(48)).flat == 1


def test_black_pictures_are_counted_and_nothing_else_stops(people, tmp_path):
    images = people.images.copy()
    images[40:43] = 0
    findings = found(Pictures(images, people.labels), tmp_path / "some")
    assert [finding.said for finding in findings] == ["3 of 48 pictures show one colour and nothing else"]
    with pytest.raises(ValueError, match="expected faces, got 48 of one colour among those looked at, all of them"):
        train(Pictures(np.full_like(images, 255), people.labels), ONCE, tmp_path / "all")


def test_labels_that_are_nearly_one_class_or_one_each_are_found():
    nearly = np.zeros(100, np.int64)
    nearly[:2] = 1, 2
    assert names(of_labels(nearly)) == ["one_class"]
    assert names(of_labels(np.arange(50))) == ["single_pictures"]
    assert names(of_labels(np.arange(50) % 10)) == []


@pytest.mark.parametrize(
    ("norm", "said"), [(1e4, "explode: mean norm 1e+04 at step 7"), (0.1, "vanish: mean norm 0.1")]
)
def test_norms_that_explode_or_vanish_are_found(norm, said):
    (finding,) = of_norm(7, norm, 512)
    assert said in finding.said
    assert list(of_norm(7, 22.0, 512)) == []


def test_norms_are_watched_while_training(people, tmp_path, monkeypatch):
    build = networks.BACKBONES["iresnet_tiny"]

    def loud(dropout=0.0):
        model = build(dropout=dropout)
        model.features.weight.data.fill_(1000.0)
        return model

    monkeypatch.setattr(networks, "BACKBONES", {"iresnet_tiny": loud})
    findings = found(people, tmp_path)
    assert "norms" in names(findings)
    assert "embeddings explode" in findings[0].said


@pytest.mark.parametrize("margin", [ArcFace(0.5, 64.0), CosFace(0.35, 32.0), AdaFace(), ArcFace(0.2, 16.0)])
@pytest.mark.parametrize("classes", [10, 30_000])
def test_the_first_loss_is_what_random_embeddings_give(margin, classes):
    state = State(replace(RECIPE, margin=margin), classes, torch.device("cpu"))
    with torch.no_grad():
        loss = float(state.head(torch.randn(128, 128), torch.randint(classes, (128,))))
    assert expected_loss(state, classes) == pytest.approx(loss, rel=0.1)


def test_weights_that_know_the_people_already_are_noticed_at_the_first_step(people, tmp_path, monkeypatch):
    trained = train(people, RECIPE, tmp_path / "before")
    known = torch.load(tmp_path / "before" / CHECKPOINT, weights_only=True)
    init = State.__init__

    def leaked(self, *args):
        init(self, *args)
        self.model.load_state_dict(trained.model.state_dict())
        self.head.load_whole(known["head"]["weight"])

    monkeypatch.setattr(State, "__init__", leaked)
    assert names(found(people, tmp_path / "after")) == ["first_loss"]


def test_a_network_that_does_not_learn_is_found():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 10
    assert names(of_embeddings(300, rng.normal(size=(80, 128)) * 2, labels)) == ["not_learning"]
    learnt = rng.normal(size=(10, 128))[labels] + rng.normal(size=(80, 128)) / 2
    assert names(of_embeddings(300, learnt, labels)) == []
    assert names(of_embeddings(300, np.full((80, 128), np.nan), labels)) == ["norms"]


def test_too_few_pairs_say_nothing():
    assert above_chance(np.random.default_rng(0).normal(size=(8, 4)), np.arange(8), 8) is None
    assert above_chance(np.random.default_rng(0).normal(size=(8, 4)), np.zeros(8, np.int64), 8) is None


@dataclass(frozen=True)
class Poisoned(CosFace):
    """A margin whose logits are not numbers from a step on."""

    after: int = 0

    def module(self):
        margin, self_after = super().module(), self.after

        class Module(torch.nn.Module):
            calls = 0

            def forward(self, cosine, labels, norms):
                self.calls += 1
                return margin(cosine, labels, norms) * (torch.nan if self.calls > self_after else 1)

        return Module()


def test_a_loss_that_is_not_finite_names_epoch_step_and_the_checkpoint_that_is_left(people, tmp_path):
    with pytest.raises(
        ValueError, match=r"got nan in epoch 2, step 2; the last good checkpoint is kept: epoch 1 and 0"
    ):
        train(people, replace(RECIPE, margin=Poisoned(after=4)), tmp_path)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert all(torch.isfinite(value).all() for value in saved["model"].values())
    with pytest.raises(ValueError, match=r"got nan in epoch 1, step 1; no checkpoint was written before it"):
        train(people, replace(RECIPE, margin=Poisoned(after=0)), tmp_path / "at once")


def test_renders_of_the_bundled_world_raise_no_warning():
    images, labels = renders(people=4, each=4)
    assert names([*of_pictures(images, labels), *of_labels(labels)]) == []
    assert scanned(images, labels, None).twins == ()
    assert "channel_order" in names(of_pictures(np.ascontiguousarray(images[..., ::-1]), labels))


def renders(people: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops of people of the bundled world, in the wild."""
    rng = np.random.default_rng(3)
    labels = np.arange(people).repeat(each)
    rows = [row for _ in range(people) for row in training_attributes(each, rng)]
    seeds = rng.integers(0, 2**63 - 1, len(rows))
    drawn = render(sample_people(people, rng)[labels], attribute_table(rows), seeds, 112)
    return crop(drawn.pixels, drawn.landmarks), labels
