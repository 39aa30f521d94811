import cv2
import numpy as np
import onnxruntime
import pytest

from stages.embed.bundled import Bundled
from stages.records import Images
from tests.stages.cast import chunk_of, person
from tests.stages.conftest import SPACE, write_detector, write_embedder, write_listing


def pictures(n, size_px=112, seed=0):
    """Smooth random patterns, bright enough to count as faces."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 256, (n, 8, 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(one, (size_px, size_px), interpolation=cv2.INTER_CUBIC) for one in coarse])


def images_of(pixels):
    return Images(chunk_of([person(0)], len(pixels)), pixels)


def bytes_of(faces):
    return [getattr(faces, name).tobytes() for name in ("crops", "landmarks", "embeddings", "norms", "found")]


def test_embeddings_are_unit_and_rows_in_are_rows_out(weights):
    images = images_of(pictures(5))
    faces = Bundled(SPACE, weights=weights)(images)
    assert faces.chunk is images.chunk
    assert faces.embeddings.shape == (5, 24)
    assert np.linalg.norm(faces.embeddings, axis=1) == pytest.approx(1, abs=1e-6)
    assert (faces.norms > 0).all()
    assert faces.found.all()


def test_a_face_has_the_same_bits_in_whatever_chunk_and_place_it_is(weights):
    embedder, pixels = Bundled(SPACE, batch_size=4, weights=weights), pictures(11)
    together = embedder(images_of(pixels))
    for start, stop in [(0, 1), (1, 4), (4, 9), (3, 11), (10, 11)]:
        part = embedder(images_of(pixels[start:stop]))
        for name in ("crops", "landmarks", "embeddings", "norms", "found"):
            assert np.array_equal(getattr(part, name), getattr(together, name)[start:stop]), name


def test_two_embedders_of_one_space_agree_to_the_bit(weights):
    images = images_of(pictures(6))
    assert bytes_of(Bundled(SPACE, weights=weights)(images)) == bytes_of(Bundled(SPACE, weights=weights)(images))


def test_the_embedding_is_the_networks_output_on_rgb_scaled_to_plus_minus_one(weights):
    crops = pictures(3)
    session = onnxruntime.InferenceSession(weights / "embedder_a.onnx", providers=["CPUExecutionProvider"])
    (raw,) = session.run(None, {"pixels": (crops.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5})
    embeddings, norms = Bundled(SPACE, weights=weights).embed_crops(crops)
    np.testing.assert_allclose(norms, np.linalg.norm(raw, axis=1), rtol=1e-5)
    np.testing.assert_allclose(embeddings, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


def test_a_face_where_the_template_is_is_its_own_crop_at_any_size_of_picture(weights):
    write_detector(weights / "detector.onnx")
    write_listing(weights)
    embedder = Bundled(SPACE, weights=weights)
    small, large = embedder(images_of(pictures(2))), embedder(images_of(pictures(2, size_px=224)))
    assert np.array_equal(small.crops, pictures(2))
    np.testing.assert_allclose(large.landmarks, (small.landmarks + 0.5) * 2 - 0.5, atol=1e-4)
    halved = np.stack([cv2.resize(one, (112, 112), interpolation=cv2.INTER_AREA) for one in pictures(2, 224)])
    assert np.abs(large.crops.astype(int) - halved).max() <= 1


def test_a_dark_picture_is_no_face_and_still_has_a_row_of_finite_numbers(weights):
    pixels = pictures(3)
    pixels[1] = 0
    faces = Bundled(SPACE, weights=weights)(images_of(pixels))
    assert faces.found.tolist() == [True, False, True]
    assert np.isfinite(faces.embeddings).all()
    assert np.linalg.norm(faces.embeddings, axis=1) == pytest.approx(1, abs=1e-6)


def test_weights_of_another_hash_are_refused_naming_both(weights):
    expected = (weights / "weights.json").read_text().split('"sha256": "')[2][:64]
    write_embedder(weights / "embedder_a.onnx", scale=2.0)
    with pytest.raises(ValueError, match=f"sha256 {expected}, got [0-9a-f]{{64}}"):
        Bundled(SPACE, weights=weights)


def test_a_detector_of_another_hash_is_refused(weights):
    write_detector(weights / "detector.onnx")
    with pytest.raises(ValueError, match=r"expected detector.onnx with sha256"):
        Bundled(SPACE, weights=weights)


def test_preflight_can_ask_for_the_weights_without_loading_them(weights):
    Bundled.check_weights(SPACE, weights)
    write_detector(weights / "detector.onnx")
    with pytest.raises(ValueError, match=r"expected detector.onnx with sha256"):
        Bundled.check_weights(SPACE, weights)
    (weights / "embedder_a.onnx").unlink()
    with pytest.raises(ValueError, match="found no such file"):
        Bundled.check_weights(SPACE, weights)


def test_an_unknown_space_is_refused_naming_those_there_are(weights):
    with pytest.raises(ValueError, match=r"one of \['tiny-1'\], got 'arcface-wf42m'"):
        Bundled("arcface-wf42m", weights=weights)


def test_a_graph_that_insightface_would_scale_otherwise_is_refused(weights):
    write_embedder(weights / "embedder_a.onnx", first_nodes=("Sub_0", "Mul_0"))
    write_listing(weights)
    with pytest.raises(ValueError, match=r"expected no nodes named Sub... and Mul..."):
        Bundled(SPACE, weights=weights)


def test_weights_without_a_direction_are_a_mistake(weights):
    write_embedder(weights / "embedder_a.onnx", scale=0.0)
    write_listing(weights)
    with pytest.raises(ValueError, match="expected embeddings with a direction"):
        Bundled(SPACE, weights=weights).embed_crops(pictures(1))


def test_mistakes_name_value_and_expectation(weights, tmp_path_factory):
    for make, named in [
        (lambda: Bundled(SPACE, threads=0, weights=weights), "expected at least 1, got 0"),
        (lambda: Bundled(SPACE, batch_size=0, weights=weights), "expected at least 1, got 1, 0"),
        (
            lambda: Bundled(SPACE, min_probability=1.5, weights=weights),
            "min_probability: expected a number in [0, 1], got 1.5",
        ),
        (lambda: Bundled(SPACE, border="grey", weights=weights), "border: expected one of black, edge, got 'grey'"),
        (lambda: Bundled(SPACE, weights=tmp_path_factory.mktemp("empty")), "weights.json, found no such file"),
        (
            lambda: Bundled(SPACE, weights=weights)(images_of(pictures(1)[:, :100])),
            "expected square pictures, got 112 x 100",
        ),
    ]:
        with pytest.raises(ValueError) as error:
            make()
        assert named in str(error.value)
