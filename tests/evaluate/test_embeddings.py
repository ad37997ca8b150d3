# SPDX-License-Identifier: Apache-2.0
import ast
import functools
import importlib.metadata
import importlib.util
import json
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import jax
import librosa
import numpy as np
import pytest
import safetensors.numpy

from stemgen_jax import codec, sweep
from stemgen_jax.errors import UserError
from stemgen_jax.evaluate.distributions import embed
from stemgen_jax.evaluate.metrics import musicnn, vggish
from stemgen_jax.evaluate.metrics.embeddings import AT_ONCE, Embedding, in_batches, load_embedding
from stemgen_jax.evaluate.metrics.tensor_bundle import MAGIC, read_tensors

CODEC = codec.load()
needs_musicnn = pytest.mark.skipif(
  importlib.util.find_spec("musicnn") is None, reason="musicnn's weights are not installed"
)


def noise(samples, seed=0):
  return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def varint(value):
  out = b""
  while value > 127:
    out += bytes([value & 127 | 128])
    value >>= 7
  return out + bytes([value])


def field(number, value):
  """A field of a protocol buffer: a number, or bytes and what consists of them."""
  if isinstance(value, int):
    return varint(number << 3) + varint(value)
  value = value.encode() if isinstance(value, str) else value
  return varint(number << 3 | 2) + varint(len(value)) + value


def test_short_audio_is_padded_to_one_window():
  seen = []
  embedding = Embedding("x", 10, 1.0, 8, lambda x: seen.append(x) or np.zeros((1, 1), np.float32))
  for samples in (0, 3, 8, 11):
    embedding(np.ones(samples))
  assert [len(x) for x in seen] == [8, 8, 8, 11]
  assert seen[1].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_batches_are_of_few_shapes_and_in_order():
  windows, shapes = noise((2 * AT_ONCE + 3) * 6).reshape(-1, 2, 3), set()

  def network(batch):
    shapes.add(batch.shape)
    return batch.sum(axis=1)

  np.testing.assert_array_equal(in_batches(network, windows), windows.sum(axis=1))
  assert shapes == {(AT_ONCE, 2, 3), (4, 2, 3)}


def test_encodec_is_what_the_sweep_embeds():
  embedding = load_embedding("encodec", CODEC)
  assert (embedding.name, embedding.rate_hz) == ("encodec", CODEC.spec.sample_rate)
  samples = noise(round(2.5 * CODEC.decoded_rate_hz))
  found = embed(embedding, samples[None], CODEC.decoded_rate_hz)
  assert len(found) == 2.5 // embedding.seconds
  np.testing.assert_array_equal(found, sweep.embed(CODEC, samples[None, None]))
  assert embedding.least_samples == embedding.seconds * embedding.rate_hz


@pytest.mark.parametrize(
  "spec", ["clap", "", "encodec=x", "musicnn=", "vggish", "vggish=", "=x.onnx", "clap=model.pt"]
)
def test_an_unknown_embedding_is_an_error(spec):
  with pytest.raises(UserError, match=f"must be encodec, .* got '{spec}'"):
    load_embedding(spec, CODEC)


def write_bundle(tensors, restart=2, blocks=2, compression=0):
  """TensorFlow's index and data of a checkpoint, keys as differences but every `restart`-th."""

  def block(pairs):
    out, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(pairs):
      shared = 0
      if i % restart:
        while key[shared : shared + 1] == last[shared : shared + 1] != b"":
          shared += 1
      else:
        restarts.append(len(out))
      out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
      last = key
    return out + b"".join(struct.pack("<I", x) for x in (*restarts, len(restarts)))

  data, pairs = b"", [(b"", field(1, 1))]
  for name, tensor in sorted(tensors.items()):
    dims = b"".join(field(2, field(1, size)) for size in tensor.shape)
    kind = {"float32": 1, "int64": 9}[tensor.dtype.name]
    entry = field(1, kind) + field(2, dims) + field(5, tensor.nbytes)
    entry += (field(4, len(data)) if data else b"") + varint(6 << 3 | 5) + b"\1\2\3\4"
    pairs.append((name.encode(), entry))
    data += tensor.tobytes()
  index, handles, size = b"", [], -(-len(pairs) // blocks)
  for start in range(0, len(pairs), size):
    part = block(pairs[start : start + size])
    handles.append((pairs[start][0], varint(len(index)) + varint(len(part))))
    index += part + bytes([compression, 0, 0, 0, 0])
  top = block(handles)
  footer = varint(0) + varint(0) + varint(len(index)) + varint(len(top))
  return index + top + b"\0" * 5 + footer.ljust(40, b"\0") + MAGIC, data


def test_a_tensorflow_checkpoint_is_read():
  tensors = {f"layer_{i}/{x}": noise(300 + i).reshape(1, -1) for i in range(9) for x in "ab"}
  tensors |= {"step": np.array(7), "layer": np.zeros((2, 3), np.float32)}
  index, data = write_bundle(tensors)
  found = read_tensors(index, data)
  assert found.keys() == tensors.keys()
  for name, tensor in tensors.items():
    assert found[name].dtype == tensor.dtype
    np.testing.assert_array_equal(found[name], tensor)


def test_a_broken_checkpoint_is_an_error():
  index, data = write_bundle({"a": noise(10)}, blocks=1)
  for args, message in (
    ((index[:-1], data), "must end as a TensorBundle"),
    ((index, data[:-1]), "tensor a must be plain numbers .* 0 to 40 of 39"),
    ((index.replace(field(5, 40), field(5, 44)), data), r"shape=\[10\] and bytes 0 to 44"),
    ((index.replace(varint(6 << 3 | 5), varint(6 << 3 | 1)), data), "wire type 1"),
    (write_bundle({"a": noise(10)}, compression=1), "compressed; got compression=1"),
  ):
    with pytest.raises(UserError, match=message):
      read_tensors(*args)


def render(program, drums):
  """Three seconds of one General MIDI instrument, at musicnn's rate."""
  tinysoundfont = pytest.importorskip("tinysoundfont", reason="music is rendered with it")
  pretty_midi = pytest.importorskip("pretty_midi", reason="it ships the SoundFont")
  synth = tinysoundfont.Synth(samplerate=musicnn.RATE_HZ)
  font = synth.sfload(pretty_midi.__path__[0] + "/TimGM6mb.sf2")
  synth.program_select(0, font, 0, program, drums)
  sound = np.zeros((3 * musicnn.RATE_HZ, 2), np.float32)
  for beat, part in enumerate(np.split(sound, 12)):
    for note in (36 if beat % 2 else 38, 42) if drums else (60, 64 + beat % 3, 67):
      synth.noteon(0, note, 100)
    synth.generate_simple(len(part), memoryview(part).cast("B"))
  return sound.mean(axis=1) / np.abs(sound).max()


@needs_musicnn
@pytest.mark.parametrize(
  ("program", "drums", "tags"),
  [(0, True, {"drums", "beat"}), (0, False, {"piano"}), (52, False, {"choir", "choral"})],
)
def test_musicnn_hears_what_plays(program, drums, tags):
  root = Path(str(importlib.metadata.distribution("musicnn").locate_file("musicnn")))
  for node in ast.parse((root / "configuration.py").read_text()).body:
    if isinstance(node, ast.Assign) and node.targets[0].id == "MTT_LABELS":
      labels = ast.literal_eval(node.value)
  embedding, params = load_embedding("musicnn", CODEC), musicnn.load_musicnn()
  (hidden,) = embedding(render(program, drums))
  assert hidden.shape == (200,)
  logits = hidden @ params["dense_1/kernel"] + params["dense_1/bias"]
  assert tags <= {labels[i] for i in np.argsort(-logits)[:3]}
  assert "musicnn" not in sys.modules


@needs_musicnn
@pytest.mark.torch
def test_musicnn_equals_its_layers_in_torch():
  torch = pytest.importorskip("torch", reason="the layers are written again in it")
  functional = torch.nn.functional
  params = musicnn.load_musicnn()
  values = {name: torch.tensor(value) for name, value in params.items()}

  def take(kind, i):
    head = f"{kind}_{i}/" if i else f"{kind}/"
    return {name[len(head) :]: value for name, value in values.items() if name.startswith(head)}

  def norm(x, i):  # channels second
    at = take("batch_normalization", i)
    mean, variance = at["moving_mean"], at["moving_variance"]
    return functional.batch_norm(x, mean, variance, at["gamma"], at["beta"], eps=1e-3)

  def convolve(x, i):
    at = take("conv2d", i)
    x = functional.conv2d(x, at["kernel"].permute(3, 2, 0, 1), at["bias"])
    return norm(functional.relu(x), i + 1)

  windows = musicnn.cut_musicnn(noise(100_000))
  x = norm(torch.tensor(windows)[:, None], 0)
  front = [convolve(functional.pad(x, (0, 0, 3, 3)), i).amax(dim=3) for i in (0, 1)]
  for i, length in ((2, 128), (3, 64), (4, 32)):
    padded = functional.pad(x, (0, 0, (length - 1) // 2, length // 2))
    front.append(convolve(padded, i).amax(dim=3))
  layers = [torch.cat(front, dim=1)]
  for i in (5, 6, 7):
    across = functional.pad(layers[-1], (3, 3)).transpose(1, 2)[:, None]
    layers.append(convolve(across, i)[..., 0] + (layers[-1] if i > 5 else 0))
  features = torch.cat(layers, dim=1)
  pooled = torch.stack([features.amax(dim=2), features.mean(dim=2)], dim=2).flatten(1)
  dense = take("dense", 0)
  want = norm(functional.relu(norm(pooled, 9) @ dense["kernel"] + dense["bias"]), 10)
  assert len(windows) == 2
  found = in_batches(functools.partial(musicnn.apply_musicnn, params), windows)
  np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4)


def test_musicnn_cuts_log_mel_windows():
  samples = noise(2 * 187 * 256 - 256)
  windows = musicnn.cut_musicnn(samples)
  assert windows.shape == (2, 187, 96)
  assert musicnn.cut_musicnn(samples[:-1]).shape[0] == 1
  assert musicnn.cut_musicnn(samples[: 186 * 256]).shape[0] == 1
  around = np.concatenate([samples[256:0:-1], samples])  # mirrored at the start
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
  for window, frame in ((0, 0), (0, 3), (1, 5)):
    piece = around[256 * (187 * window + frame) :][:512]
    power = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=96) @ np.square(
      np.abs(np.fft.rfft(piece * hann))
    )
    np.testing.assert_allclose(windows[window, frame], np.log10(1e4 * power + 1), atol=1e-4)


@needs_musicnn
def test_musicnn_is_found_in_a_wheel_or_a_folder(tmp_path):
  root = Path(str(importlib.metadata.distribution("musicnn").locate_file("musicnn")))
  wheel = tmp_path / "musicnn-0.1.0-py3-none-any.whl"
  with zipfile.ZipFile(wheel, "w") as file:
    for name in musicnn.DIGESTS:
      file.write(root / musicnn.MODEL / name, f"musicnn/{musicnn.MODEL}/{name}")
  want = musicnn.load_musicnn()
  for path in (wheel, root.parent, root, root / musicnn.MODEL):
    found = musicnn.load_musicnn(path)
    assert found.keys() == want.keys()
    assert all((found[name] == want[name]).all() for name in want)
  assert load_embedding(f"musicnn={wheel}", CODEC).name == "musicnn"

  shutil.copytree(root / musicnn.MODEL, tmp_path / "damaged")
  with (tmp_path / "damaged" / ".index").open("ab") as file:
    file.write(b"x")
  with pytest.raises(UserError, match=r"must be those of version 0\.1\.0; got .*\.index"):
    musicnn.load_musicnn(tmp_path / "damaged")


def test_a_missing_musicnn_is_an_error(tmp_path, monkeypatch):
  with pytest.raises(UserError, match=r"folder that holds MTT_musicnn; got .*nowhere"):
    load_embedding(f"musicnn={tmp_path / 'nowhere'}", CODEC)

  def distribution(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, "distribution", distribution)
  with pytest.raises(UserError, match=r"pip install --no-deps musicnn==0\.1\.0"):
    load_embedding("musicnn", CODEC)


def test_vggish_cuts_log_mel_windows():
  samples = noise(2 * 15_360 + 240)
  windows = vggish.cut_vggish(samples)
  assert windows.shape == (2, 96, 64)
  assert vggish.cut_vggish(samples[:-1]).shape[0] == 1
  mel = 1127 * np.log(1 + np.arange(257) * 16_000 / 512 / 700)
  edges = np.linspace(*1127 * np.log(1 + np.array([125, 7500]) / 700), 66)
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
  magnitude = np.abs(np.fft.rfft(samples[97 * 160 :][:400] * hann, 512))
  for band in (0, 20, 63):
    want = magnitude @ np.interp(mel, edges[band : band + 3], [0, 1, 0])
    np.testing.assert_allclose(windows[1, 1, band], np.log(want + 0.01), rtol=1e-5)


@pytest.mark.torch
def test_vggish_equals_torch():
  torch = pytest.importorskip("torch", reason="the network is built again in it")
  torch.manual_seed(0)
  layers, deep = {}, 1
  for i, wide in {0: 2, 3: 3, 6: 4, 8: 4, 11: 5, 13: 5}.items():
    layers[f"features.{i}"], deep = torch.nn.Conv2d(deep, wide, 3, padding=1), wide
  for i, (into, out) in {0: (5 * 6 * 4, 7), 2: (7, 8), 4: (8, 6)}.items():
    layers[f"embeddings.{i}"] = torch.nn.Linear(into, out)
  params = {
    f"{name}.{key}": value.detach().numpy()
    for name, layer in layers.items()
    for key, value in layer.named_parameters()
  }
  windows = noise(2 * 96 * 64).reshape(2, 96, 64)
  with torch.no_grad():
    x = torch.tensor(windows)[:, None]
    for name, layer in layers.items():
      if name == "embeddings.0":
        x = x.permute(0, 2, 3, 1).flatten(1)
      x = layer(x)
      x = x if name == "embeddings.4" else torch.relu(x)
      if name in ("features.0", "features.3", "features.8", "features.13"):
        x = torch.nn.functional.max_pool2d(x, 2)
  np.testing.assert_allclose(vggish.apply_vggish(params, windows), x, rtol=1e-4, atol=1e-6)


def test_vggish_has_its_known_size():
  params = {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in vggish.SHAPES.items()}
  assert sum(np.prod(shape) for shape in vggish.SHAPES.values()) == 72_141_184
  windows = jax.ShapeDtypeStruct((3, 96, 64), np.float32)
  assert jax.eval_shape(vggish.apply_vggish, params, windows).shape == (3, 128)


def test_vggish_weights_are_read_and_checked(tmp_path, monkeypatch):
  shapes = {name: tuple(min(n, 3) for n in shape) for name, shape in vggish.SHAPES.items()}
  monkeypatch.setattr(vggish, "SHAPES", shapes)
  weights = {name: noise(np.prod(shape)).reshape(shape) for name, shape in shapes.items()}
  np.savez(tmp_path / "w.npz", **weights, **{"pproc.pca_means": noise(3)})
  safetensors.numpy.save_file(weights, tmp_path / "w.safetensors")
  for name in ("w.npz", "w.safetensors"):
    found = vggish.load_vggish(tmp_path / name)
    assert found.keys() == shapes.keys()
    assert all((found[key] == value).all() for key, value in weights.items())
  embedding = load_embedding(f"vggish={tmp_path / 'w.npz'}", CODEC)
  assert (embedding.name, embedding.rate_hz, embedding.seconds) == ("vggish", 16_000, 0.96)
  assert embedding.least_samples == 15_600

  (tmp_path / "text.npz").write_text("no weights")
  (tmp_path / "cut.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:-9])
  (tmp_path / "text.safetensors").write_text("no weights")
  np.savez(tmp_path / "few.npz", **{"features.0.weight": weights["features.0.weight"]})
  np.savez(tmp_path / "other.npz", **weights | {"embeddings.4.bias": noise(4)})
  for name, message in (
    ("none.npz", "must exist; got path=.*none.npz"),
    ("text.npz", "must be a .safetensors or .npz"),
    ("cut.npz", "must be a .safetensors or .npz"),
    ("text.safetensors", "must be a .safetensors or .npz"),
    ("few.npz", r"features.3.weight of shape \(3, 3, 3, 3\); got none"),
    ("other.npz", r"embeddings.4.bias of shape \(3,\); got \(4,\)"),
  ):
    with pytest.raises(UserError, match=message):
      vggish.load_vggish(tmp_path / name)


def write_onnx(path, inputs, matrix, rows=0, rate_hz=8, seconds=1.0):
  """A model, waveform @ matrix (first cut into `rows`), and the JSON file beside it."""

  def tensor(name, array, kind):
    dims = b"".join(field(1, size) for size in array.shape)
    return dims + field(2, kind) + field(8, name) + field(9, array.tobytes())

  def value(name, shape, kind=1):
    dims = b"".join(field(1, field(1 if isinstance(x, int) else 2, x)) for x in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))

  source = next(iter(inputs))
  graph = field(2, "test") + field(5, tensor("matrix", matrix, 1))
  if rows:
    graph += field(5, tensor("rows", np.array([rows, -1]), 7))
    cut = field(1, source) + field(1, "rows") + field(2, "cut") + field(4, "Reshape")
    graph, source = graph + field(1, cut), "cut"
  product = field(1, source) + field(1, "matrix") + field(2, "out") + field(4, "MatMul")
  graph += field(1, product)
  graph += b"".join(field(11, value(name, *rest)) for name, rest in inputs.items())
  rank = 2 if rows else len(next(iter(inputs.values()))[0])
  graph += field(12, value("out", "nd"[2 - rank :] if rank < 3 else "bnd"))
  path.write_bytes(field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph))
  path.with_suffix(".json").write_text(json.dumps({"rate_hz": rate_hz, "seconds": seconds}))
  return f"net={path}"


@pytest.mark.parametrize(
  ("shape", "rows"), [((1, "samples"), 0), (("samples",), 0), ((1, "samples"), 2)]
)
def test_an_onnx_model_is_an_embedding(tmp_path, shape, rows):
  pytest.importorskip("onnxruntime", reason="it runs the model")
  matrix = noise(24).reshape((4, 6) if rows else (8, 3))
  spec = write_onnx(tmp_path / "net.onnx", {"waveform": (shape,)}, matrix, rows)
  embedding = load_embedding(spec, CODEC)
  assert (embedding.name, embedding.rate_hz, embedding.seconds) == ("net", 8, 1.0)
  samples = noise(19)
  want = samples[:16].reshape(-1, len(matrix)) @ matrix
  np.testing.assert_allclose(embedding(samples), want, rtol=1e-5)
  np.testing.assert_allclose(embedding(samples[:3])[0], samples[:3] @ matrix[:3], rtol=1e-5)


def test_a_useless_onnx_model_is_an_error(tmp_path):
  pytest.importorskip("onnxruntime", reason="it runs the model")
  path, matrix = tmp_path / "net.onnx", noise(24).reshape(8, 3)
  wave = ((1, "samples"),)
  for inputs, message in (
    ({"waveform": wave, "length": ((1,), 7)}, "one input, .* length tensor.int64"),
    ({"waveform": ((1, 1, "samples"),)}, r"one input, .*\[1, 1, 'samples'\]"),
    ({"waveform": ((1, "samples"), 11)}, r"reads; got path="),  # doubles times floats
  ):
    with pytest.raises(UserError, match=message):
      load_embedding(write_onnx(path, inputs, matrix), CODEC)
  with pytest.raises(UserError, match=r"must take 9 samples; got .* Correct .*net\.json"):
    load_embedding(write_onnx(path, {"waveform": wave}, matrix, rate_hz=9), CODEC)(noise(9))
  spec = write_onnx(path, {"waveform": wave}, matrix.reshape(1, 8, 3))
  with pytest.raises(UserError, match=r"must return \[D\] or \[n, D\] first; got shape=\(1, 1, 3"):
    load_embedding(spec, CODEC)(noise(8))
  path.write_text("no model")
  with pytest.raises(UserError, match="reads; got path="):
    load_embedding(spec, CODEC)
  path.unlink()
  with pytest.raises(UserError, match="model must be a file; got"):
    load_embedding(spec, CODEC)


@pytest.mark.parametrize(
  "fields",
  [
    {"rate_hz": 8},
    {"rate_hz": 8, "seconds": 1, "hop": 1},
    {"rate_hz": 0, "seconds": 1},
    {"rate_hz": 8.5, "seconds": 1},
    {"rate_hz": True, "seconds": 1},
    {"rate_hz": 8, "seconds": "1"},
    {"rate_hz": 8, "seconds": 0.1},
    {"rate_hz": 8, "seconds": float("inf")},
    [8, 1],
  ],
)
def test_a_models_window_is_two_numbers(tmp_path, fields):
  (tmp_path / "net.json").write_text(json.dumps(fields))
  (tmp_path / "net.onnx").touch()
  with pytest.raises(UserError, match=r"net\.json must give a positive whole"):
    load_embedding(f"net={tmp_path / 'net.onnx'}", CODEC)


@pytest.mark.parametrize("text", [None, "{"])
def test_a_models_window_is_a_json_file(tmp_path, text):
  if text is not None:
    (tmp_path / "net.json").write_text(text)
  (tmp_path / "net.onnx").touch()
  with pytest.raises(UserError, match=r"net\.json must be a JSON file like"):
    load_embedding(f"net={tmp_path / 'net.onnx'}", CODEC)


def test_without_onnxruntime_it_is_asked_for(tmp_path, monkeypatch):
  spec = write_onnx(tmp_path / "net.onnx", {"waveform": ((1, "n"),)}, noise(4).reshape(2, 2))
  monkeypatch.setitem(sys.modules, "onnxruntime", None)
  with pytest.raises(UserError, match="pip install onnxruntime"):
    load_embedding(spec, CODEC)
