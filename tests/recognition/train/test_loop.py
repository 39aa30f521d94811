from dataclasses import replace

import numpy as np
import pytest
import torch

from recognition.augment import Augment
from recognition.backbones import BACKBONES
from recognition.train import CHECKPOINT, Pictures, embed, load_trained, networks, train, weights_sha256
from recognition.train.logs import JSONL
from recognition.train.state import State, optimizer_of
from tests.recognition.train.conftest import RECIPE


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    return train(people, RECIPE, tmp_path_factory.mktemp("model"))


def test_the_same_recipe_gives_the_same_weights(people, trained, tmp_path):
    assert train(people, RECIPE, tmp_path).weights_sha256 == trained.weights_sha256


def test_another_seed_gives_other_weights(people, trained, tmp_path):
    other = train(people, replace(RECIPE, seed=1, epochs=1), tmp_path)
    assert other.weights_sha256 != trained.weights_sha256


def test_bf16_on_the_cpu_repeats_itself_too(people, tmp_path):
    recipe = replace(RECIPE, precision="bf16", epochs=1, ema_decay=0.9, optimizer="adamw", peak_lr=1e-3)
    first, second = (train(people, recipe, tmp_path / name) for name in ("first", "second"))
    assert first.weights_sha256 == second.weights_sha256


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9, "optimizer": "adamw", "peak_lr": 1e-3}])
def test_a_run_stopped_after_an_epoch_continues_to_the_same_weights(people, tmp_path, changes):
    class PowerCutError(Exception):
        pass

    def power_cut(model, epoch):
        raise PowerCutError

    recipe = replace(RECIPE, **changes)
    whole = train(people, recipe, tmp_path / "whole")
    with pytest.raises(PowerCutError):
        train(people, recipe, tmp_path / "cut", on_epoch=power_cut)
    seen, ended = [], []
    continued = train(
        people,
        recipe,
        tmp_path / "cut",
        on_progress=lambda progress: seen.append(progress.epoch),
        on_epoch=lambda model, epoch: ended.append(epoch),
    )
    assert set(seen) == {2}
    assert ended == [1, 2]  # the first once more: it was cut short in there
    assert continued.weights_sha256 == whole.weights_sha256
    assert continued.losses == whole.losses


def test_a_finished_run_is_returned_without_another_step(people, trained, tmp_path):
    train(people, RECIPE, tmp_path)
    steps = []
    again = train(people, RECIPE, tmp_path, on_progress=steps.append)
    assert (steps, again.weights_sha256) == ([], trained.weights_sha256)
    assert load_trained(tmp_path, RECIPE).weights_sha256 == trained.weights_sha256


def test_a_checkpoint_of_another_recipe_or_of_other_crops_is_refused(people, tmp_path):
    images, labels = people.images, people.labels
    recipe = replace(RECIPE, epochs=1, warmup_epochs=0.0)
    train(Pictures(images, labels), recipe, tmp_path)
    with pytest.raises(ValueError, match="this recipe and these crops"):
        train(Pictures(images, labels), replace(recipe, peak_lr=0.01), tmp_path)
    with pytest.raises(ValueError, match="this recipe and these crops"):
        train(Pictures(images[::-1], labels), recipe, tmp_path)
    with pytest.raises(ValueError, match="expected recipe"):
        load_trained(tmp_path, RECIPE)
    with pytest.raises(ValueError, match="found none"):
        load_trained(tmp_path / "elsewhere", RECIPE)


def test_a_checkpoint_holds_no_code(people, tmp_path):
    train(people, replace(RECIPE, epochs=1, warmup_epochs=0.0), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, JSONL]
    torch.load(tmp_path / CHECKPOINT, weights_only=True)


def test_training_tells_its_own_people_apart(people, tmp_path):
    images, labels = people.images, people.labels
    recipe = replace(RECIPE, epochs=8, augment=Augment(flip=0.0, erase=0.0), peak_lr=0.05)
    result = train(Pictures(images, labels), recipe, tmp_path)
    assert result.losses[-1] < result.losses[0] / 2
    raw = embed(result.model, images)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    cosine = unit @ unit.T
    same = labels[:, None] == labels[None]
    assert cosine[same].mean() > cosine[~same].mean() + 0.3


def test_a_memory_map_trains_like_an_array(people, trained, tmp_path):
    images, labels = people.images, people.labels
    np.save(tmp_path / "crops.npy", images)
    mapped = np.load(tmp_path / "crops.npy", mmap_mode="r")
    assert train(Pictures(mapped, labels), RECIPE, tmp_path).weights_sha256 == trained.weights_sha256


def test_progress_ends_at_the_last_step_of_each_epoch(people, tmp_path):
    lines = []
    train(people, RECIPE, tmp_path, on_progress=lines.append)
    assert [(line.epoch, line.step, line.steps) for line in lines] == [(1, 3, 3), (2, 3, 3)]
    assert str(lines[0]).startswith("epoch 1/2 step 3/3 loss ")


def test_fewer_pictures_than_a_batch_are_one_batch(people, tmp_path):
    images, labels = people.images, people.labels
    recipe = replace(RECIPE, epochs=1, warmup_epochs=0.0, batch_size=512)
    assert len(train(Pictures(images, labels), recipe, tmp_path).losses) == 1


def test_a_set_smaller_than_a_batch_is_told(people, tmp_path):
    said = []
    recipe = replace(RECIPE, epochs=1, warmup_epochs=0.0, batch_size=512)
    train(people, recipe, tmp_path, say=said.append)
    assert "batches: 48 pictures are one batch, smaller than the batch_size of 512" in said


def test_a_training_may_begin_with_the_weights_of_another(people, trained, tmp_path):
    train(people, RECIPE, tmp_path / "first")
    still = replace(RECIPE, epochs=1, warmup_epochs=0.0, peak_lr=1e-12, weight_decay=0.0)
    result = train(people, still, tmp_path / "second", start=tmp_path / "first" / CHECKPOINT)
    for ours, theirs in zip(result.model.parameters(), trained.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("kept", "fault"),
    [
        (b"not a checkpoint", "expected the checkpoint.pt of a training, got another file"),
        ({"model": {}}, "expected the checkpoint.pt of a training, got another file"),
        ({"average": {}, "model": {"a": torch.zeros(2)}}, "expected weights of iresnet_tiny in .*, with a nothing"),
        ({"classes": 5}, "expected a training on 4 people in .*, got one on 5"),
    ],
)
def test_what_nothing_can_begin_with_is_refused(people, kept, fault, tmp_path):
    path = tmp_path / "start.pt"
    if isinstance(kept, bytes):
        path.write_bytes(kept)
    else:
        state = State(RECIPE, kept.pop("classes", 4), torch.device("cpu"))
        state.save(path, "")
        torch.save({**torch.load(path, weights_only=True), **kept}, path)
    if kept == {"model": {}}:
        torch.save(kept, path)
    with pytest.raises(ValueError, match=fault):
        train(people, RECIPE, tmp_path / "out", start=path)


def test_a_loss_that_is_not_finite_names_epoch_and_step(people, tmp_path, monkeypatch):
    monkeypatch.setitem(networks.__dict__, "BACKBONES", {**BACKBONES, "iresnet_tiny": Exploding})
    with pytest.raises(ValueError, match="got nan in epoch 1, step 1"):
        train(people, RECIPE, tmp_path)


class Exploding(torch.nn.Module):
    dimensions = 8

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 8)
        torch.nn.init.constant_(self.fc.weight, float("inf"))

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (np.zeros(48, np.int64), "at least 2 classes"),
        (np.arange(48) % 3 + 1, "0 to 2, none missing"),
        (np.arange(48) % 3 * 2, "0 to 2, none missing"),
        (np.arange(48) % 3 - 1, "0 to 2, none missing"),
    ],
)
def test_labels_that_are_not_contiguous_from_zero_are_refused(people, labels, fault, tmp_path):
    with pytest.raises(ValueError, match=fault):
        Pictures(people.images, labels.astype(np.int64))


def test_norms_and_biases_are_not_decayed():
    model = BACKBONES["iresnet_tiny"]()
    decayed, free = optimizer_of(list(model.parameters()), RECIPE).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (RECIPE.weight_decay, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in free["params"]} == {1}


def test_the_average_of_the_weights_follows_its_recurrence():
    state = State(replace(RECIPE, ema_decay=0.9), 4, torch.device("cpu"))
    for value in state.average.values():
        value.zero_()
    state.follow()
    state.follow()
    torch.testing.assert_close(state.average["fc.weight"], state.model.fc.weight.detach() * (1 - 0.9**2))


def test_flip_fusion_adds_the_raw_embedding_of_the_mirror_image(people, trained):
    images = people.images[:5]
    plain = embed(trained.model, images, flip=False)
    mirrored = embed(trained.model, np.ascontiguousarray(images[:, :, ::-1]), flip=False)
    np.testing.assert_allclose(embed(trained.model, images, flip=True), plain + mirrored, atol=1e-5)


def test_embedding_does_not_depend_on_the_batch_nor_change_the_mode(people, trained):
    model = trained.model.train()
    by_three = embed(model, people.images[:8], batch_size=3)
    assert model.training
    np.testing.assert_allclose(by_three, embed(model.eval(), people.images[:8]), atol=1e-5)
    assert embed(model, people.images[:0]).shape == (0, 128)


def test_the_hash_of_weights_does_not_depend_on_the_memory_layout():
    model = BACKBONES["plain_b"]()
    before = weights_sha256(model)
    assert weights_sha256(model.to(memory_format=torch.channels_last)) == before


def test_training_leaves_the_threads_and_the_random_numbers_of_torch_as_they_were(people, tmp_path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train(people, replace(RECIPE, epochs=1, warmup_epochs=0.0), tmp_path)
    load_trained(tmp_path, replace(RECIPE, epochs=1, warmup_epochs=0.0))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
