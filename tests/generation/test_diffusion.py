import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from generation import diffusion
from generation.diffusion import Control, Denoiser, FaceDiffusion, alpha_bars, noise_schedule
from tests.generation.small import AUTOENCODER, DENOISER, NARROW, TAUGHT, autoencoder, denoiser, generator


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "generator.safetensors"
    diffusion.save(generator(), path)
    return path


def changed(saved, tmp_path, change_header=None, change_tensors=None):
    """The file again, with another header or other tensors."""
    with safe_open(saved, "pt") as file:
        about = json.loads(file.metadata()["facemint"])
    tensors = load_file(saved)
    if change_header is not None:
        change_header(about)
    if change_tensors is not None:
        change_tensors(tensors)
    path = tmp_path / "other.safetensors"
    save_file(tensors, path, {"facemint": json.dumps(about)})
    return path


def test_a_distilled_model_keeps_what_guidance_it_was_taught(tmp_path):
    path = tmp_path / "student.safetensors"
    diffusion.save(generator(taught=TAUGHT), path)
    assert diffusion.load(path).taught == TAUGHT


def test_a_model_that_was_saved_is_loaded_as_it_was_to_half_precision(saved):
    loaded = diffusion.load(saved)
    assert isinstance(loaded, FaceDiffusion)
    assert (loaded.space, loaded.prediction, loaded.taught) == ("bundled-a-2", "v", None)
    assert (loaded.autoencoder.shape, loaded.denoiser.shape) == (AUTOENCODER, DENOISER)
    for ours, theirs in ((generator().autoencoder, loaded.autoencoder), (generator().denoiser, loaded.denoiser)):
        read = theirs.state_dict()
        for name, value in ours.state_dict().items():
            assert torch.equal(value.half().float(), read[name]), name


def test_a_model_that_was_loaded_and_saved_is_the_same_bytes(saved, tmp_path):
    diffusion.save(diffusion.load(saved), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    path = tmp_path / "generator.safetensors"
    path.write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match="to be a safetensors file"):
        diffusion.load(path)


def test_a_file_that_does_not_say_what_it_is_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "generator.safetensors")
    with pytest.raises(ValueError, match="under 'facemint', found nothing"):
        diffusion.load(tmp_path / "generator.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("space"),
        lambda about: about["denoiser"].update(colour="red"),
        lambda about: about["denoiser"]["controls"][0].update(colour="red"),
        lambda about: about.update(prediction="x0"),
    ],
)
def test_a_header_of_another_version_is_refused(saved, tmp_path, change):
    with pytest.raises(ValueError, match="to describe a model of this version"):
        diffusion.load(changed(saved, tmp_path, change_header=change))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda tensors: tensors.pop("denoiser.nobody"), "denoiser"),
        (lambda tensors: tensors.update({"autoencoder.mean": torch.zeros(5, 1, 1)}), "autoencoder"),
        (lambda tensors: tensors.update({"denoiser.extra": torch.zeros(5)}), "denoiser"),
    ],
)
def test_tensors_that_the_header_does_not_describe_are_refused(saved, tmp_path, change, part):
    with pytest.raises(ValueError, match=f"tensors of its {part}"):
        diffusion.load(changed(saved, tmp_path, change_tensors=change))


def test_latents_are_normalised_by_what_was_measured():
    model, pixels = autoencoder(), torch.rand(3, 3, 112, 112) * 2 - 1
    raw = model.posterior(pixels)[0]
    model.measure(raw)
    latents = model.encode(pixels)
    assert latents.shape == (3, 4, 14, 14)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.decode(latents), model.decode_raw(raw), atol=1e-4, rtol=1e-4)


def test_decoded_pictures_are_rgb_bytes_of_values_from_minus_one_to_one():
    model, latents = autoencoder(), torch.randn(2, 4, 14, 14)
    pixels = diffusion.decoded(model, latents)
    assert pixels.shape == (2, 112, 112, 3)
    values = model.decode(latents)
    inside = (values.abs() < 1).permute(0, 2, 3, 1)
    expected = values.permute(0, 2, 3, 1) * 127.5 + 127.5
    assert ((pixels.float() - expected).abs()[inside] < 0.51).all()
    assert set(pixels[~inside].tolist()) <= {0, 255}


def told(model, attributes, asked):
    context = model.context(torch.nn.functional.normalize(torch.ones(1, 128), dim=1))
    return model.condition(context, torch.tensor([attributes]), torch.tensor([asked]))


def test_an_attribute_left_open_is_not_looked_at():
    model, count = denoiser(), len(DENOISER.controls)
    asked = [True] * count
    asked[3] = False
    plain = told(model, [0.0] * count, asked)
    for value in (0.7, float("nan")):
        other = told(model, [0.0] * 3 + [value] + [0.0] * (count - 4), asked)
        assert torch.equal(plain.tokens, other.tokens)
        assert torch.equal(plain.pooled, other.pooled)
    asked[3] = True
    assert not torch.equal(plain.tokens, told(model, [0.0] * count, asked).tokens)


def test_a_quantity_is_told_from_minus_one_to_one_and_no_further():
    feature = diffusion._feature
    control = Control("age_years", 5.0, 85.0)
    values = torch.tensor([5.0, 45.0, 85.0, 200.0])
    assert feature(control, values)[:, 0].tolist() == [-1, 0, 1, 1]
    few = Control("low_resolution_px", 16.0, 64.0, logarithmic=True)
    torch.testing.assert_close(feature(few, torch.tensor([16.0, 32.0, 64.0]))[:, 0], torch.tensor([-1.0, 0.0, 1.0]))


def test_a_style_is_told_as_one_of_few():
    control = Control("hat", 0.0, 3.0, styles=4)
    features = diffusion._feature(control, torch.tensor([0.0, 3.0, 2.2]))
    assert features.argmax(1).tolist() == [0, 3, 2]
    assert features.sum(1).tolist() == [1, 1, 1]


def test_the_noise_of_v_ends_in_pure_noise_and_that_of_epsilon_does_not():
    v, epsilon = alpha_bars("v"), alpha_bars("epsilon")
    assert v.shape == (1000,)
    assert v[-1] == 0
    assert epsilon[-1] > 0
    assert (v.diff() < 0).all()
    steps = np.arange(1001) / 1000
    cosine = np.cos((steps + 0.008) / 1.008 * np.pi / 2) ** 2  # Nichol and Dhariwal (2021), equation 17
    np.testing.assert_allclose(epsilon[:900], (cosine[1:] / cosine[0])[:900], atol=1e-4)


def test_an_unknown_prediction_has_no_schedule():
    with pytest.raises(ValueError, match="prediction: expected one of v, epsilon, got 'x0'"):
        noise_schedule("x0")


def test_a_denoiser_hears_of_who_how_and_when():
    model = denoiser(NARROW)
    latents = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    def said(identity=0.5, attribute=10.0, time=500, guidance=None, around=None):
        context = model.context(torch.full((1, 8), identity))
        pushed = None if guidance is None else torch.tensor([guidance])
        asked = torch.tensor([[attribute, 0.0]]), torch.tensor([[True, True]])
        told = model.condition(context, *asked, pushed, around)
        return model(latents, torch.tensor([time]), told)

    plain = said()
    for other in (said(identity=-0.5), said(attribute=-40.0), said(time=900), said(guidance=[3.0, 1.0])):
        assert not torch.allclose(plain, other, atol=1e-6)
    wall, day = torch.zeros(1, 50), torch.zeros(1, 50)
    wall[0, 10], day[0, 49] = 1.0, 1.0
    black = said(around=torch.zeros(1, 50))
    for other in (plain, said(around=wall), said(around=day)):
        assert not torch.allclose(black, other, atol=1e-6)
    assert torch.equal(plain, said(around=torch.full((1, 50), torch.nan)))


def test_a_backdrop_lies_beside_the_latents_where_it_is_told():
    model = denoiser(NARROW)
    around = torch.arange(100.0).reshape(2, 50)
    around[1] = torch.nan
    asked = torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool)
    told = model.condition(model.context(torch.zeros(2, 8)), *asked, None, around)
    assert torch.equal(told.backdrop[0, :3], torch.arange(48.0).reshape(3, 4, 4))
    assert (told.backdrop[0, 3] == 1).all()
    assert (told.backdrop[1] == 0).all()


@pytest.mark.parametrize("count", [-1, 1, 48])
def test_circumstances_are_a_backdrop_and_more_or_none(count):
    with pytest.raises(ValueError, match=f"circumstances: expected 0 or more than 48, got {count}"):
        Denoiser(replace(NARROW, circumstances=count))


def test_a_file_from_before_circumstances_is_a_model_that_is_told_none(tmp_path):
    untold = replace(DENOISER, circumstances=0)
    diffusion.save(replace(generator(), denoiser=denoiser(untold)), tmp_path / "now.safetensors")
    before = changed(tmp_path / "now.safetensors", tmp_path, lambda about: about["denoiser"].pop("circumstances"))
    assert diffusion.load(before).denoiser.shape == untold
