# SPDX-License-Identifier: Apache-2.0
"""From torch modules to a bundle: one ONNX file a stage, the hub's weights as safetensors, the manifest."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn

from fleet.backbones import IN_BUNDLE, MEAN, STD, build_backbone
from fleet.backbones.stage import Backbone, Macs, counting
from fleet.bundle import Bundle, StageFile
from fleet.codec import Coder, Quantiser, StageLayout, coder_named
from fleet.contexts import count_contexts
from fleet.encoder import StageEncoder
from fleet.errors import FleetError
from fleet.exits import Classes, Decider
from fleet.fusion import PICTURE_STAGES, TRUNK_STEP, CloudNetwork, module_keys, packed_trunk
from fleet.ladder import Ladder, Order, finest_grid
from fleet.layout import count_tables
from fleet.packet import PICTURE
from fleet.picture import PictureEncoder, PictureExit

CLOUD_FILE = "cloud.safetensors"
PICTURE_STAGE, PICTURE_EXIT = "stage00.onnx", "picture.safetensors"
OPSET = 17
SPREAD = 0.75
"""Of the finest grid's side, the rung up to which coefficients travel spread: about one full packet of them."""


class _DeviceStage(nn.Module):
    """A stage and its encoder as one graph: the map for the next stage, and what travels."""

    def __init__(self, stage: nn.Module, encoder: StageEncoder | None) -> None:
        super().__init__()
        self.stage = stage
        self.encoder = encoder

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        output: Tensor = self.stage(features)
        return output if self.encoder is None else (output, self.encoder(output))


def stage_layouts(
    encoders: Mapping[int, StageEncoder],
    means: Mapping[int, Tensor],
    *,
    base: int,
    rungs: tuple[int, ...],
    order: Order,
) -> dict[int, StageLayout]:
    """The layout of every stage that is sent, from its trained encoder.

    Args:
        encoders: by stage.
        means: a channel's mean of what travels before quantisation, by stage, shapes (channels,).
        base: g0.
        rungs: the data set's sizes; those larger than a stage's own grid are left out.
        order: in which order bands split.
    """
    layouts = {}
    for n, encoder in encoders.items():
        low, step = encoder.low.detach().double(), encoder.step.detach().double()
        mean = ((means[n].detach().double() - low) / step).round().clamp(0, encoder.levels - 1)
        layouts[n] = StageLayout(
            stage=n,
            quantiser=Quantiser(tuple(low.tolist()), tuple(step.tolist()), encoder.levels),
            ladder=Ladder(base, (encoder.grid // base).bit_length() - 1, order),
            rungs=tuple(r for r in rungs if r <= encoder.grid),
            mean_levels=tuple(int(m) for m in mean.tolist()),
            spread=max((r for r in rungs if r <= SPREAD * encoder.grid), default=0),
        )
    return layouts


def picture_layout(encoder: PictureEncoder, mean: Tensor) -> StageLayout:
    """The layout of stage 0.

    Args:
        encoder: of the picture.
        mean: a channel's mean before quantisation, shape (channels,).
    """
    low, step = encoder.low.detach().double().cpu(), encoder.step.detach().double().cpu()
    levels = ((mean.detach().double().cpu() - low) / step).round().clamp(0, encoder.levels - 1)
    return StageLayout(
        stage=0,
        quantiser=Quantiser(tuple(low.tolist()), tuple(step.tolist()), encoder.levels),
        ladder=Ladder(encoder.grid, 0),
        rungs=(encoder.grid,),
        mean_levels=tuple(int(level) for level in levels.tolist()),
        waves=(1,) * encoder.channels,  # the lowest frequencies first
    )


def counted(layouts: Mapping[int, StageLayout], latents: Mapping[int, npt.ArrayLike]) -> dict[int, StageLayout]:
    """The layouts with their frequency tables.

    Args:
        layouts: by stage.
        latents: samples of what travels before quantisation, by stage, shapes (N, c, g, g).
    """
    return {n: replace(layout, tables=count_tables(layout, latents[n])) for n, layout in layouts.items()}


def guessed(layout: StageLayout, latents: npt.ArrayLike) -> StageLayout:
    """The layout of stage 0 with the contexts that the codec guesses its numbers by.

    Args:
        layout: of the stage.
        latents: samples of what travels before quantisation, shape (N, c, g, g).
    """
    return replace(layout, contexts=count_contexts(layout.quantiser.quantise(latents), layout.quantiser.levels))


def new_encoders(
    backbone: Backbone, channels: Mapping[int, int], *, base: int, largest: int, levels: int
) -> nn.ModuleDict:
    """Untrained encoders, keyed by the stage's number as text.

    Args:
        backbone: whose stages they follow.
        channels: channels that travel, by stage.
        base: g0.
        largest: the data set's largest rung.
        levels: quantiser levels.
    """
    specs = {spec.n: spec for spec in backbone.stage_specs}
    return nn.ModuleDict(
        {
            str(n): StageEncoder(specs[n].channels, c, grid=finest_grid(specs[n].size, base, largest), levels=levels)
            for n, c in channels.items()
        }
    )


def export_bundle(
    directory: Path,
    *,
    name: str,
    cloud: CloudNetwork,
    base: Backbone | None = None,
    encoders: Mapping[int, StageEncoder],
    layouts: Mapping[int, StageLayout],
    classes: Classes,
    decider: Decider,
    coder: Coder,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    trained: bool,
    notes: Mapping[str, str],
) -> Bundle:
    """Write a bundle and load it again.

    Args:
        directory: made if it is not there; files of the same names are replaced.
        name: of the bundle.
        cloud: exits and trunk.
        base: the base network, which the device runs; the trunk where None.
        encoders: by stage.
        layouts: by stage, see :func:`stage_layouts`.
        classes: what it recognises.
        decider: temperatures, thresholds and trigger.
        coder: how coefficients are coded.
        mean: of the input's normalisation.
        std: of the input's normalisation.
        trained: whether the weights come from training.
        notes: licence, data, training.

    Raises:
        FleetError: the directory cannot be written.
    """
    backbone = base or cloud.backbone
    backbone.eval()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stages = [
            _export_stage(directory, backbone, n, encoders.get(n)) for n in range(1, len(backbone.stage_specs) + 1)
        ]
        state = dict(cloud.state_dict())
        state = {key: _shipped(value) for key, value in state.items()}
        if base is not None and base is not cloud.backbone:
            own = {key: value for key, value in state.items() if not key.startswith(IN_BUNDLE)}
            shipped = {key: _shipped(value) for key, value in base.state_dict().items()}
            trunk = packed_trunk(cloud.backbone.state_dict(), shipped)
            state = own | {f"{IN_BUNDLE}{key}": value for key, value in shipped.items()}
            state |= {key: value if key.startswith(TRUNK_STEP) else _shipped(value) for key, value in trunk.items()}
        save_file(state, directory / CLOUD_FILE)
        (directory / CLOUD_FILE).chmod(0o644)  # safetensors keeps it to its owner; others may run the model
    except OSError as err:
        raise FleetError(f"cannot write the bundle to {directory}: {err.strerror}") from err
    draft = Bundle(
        path=directory,
        name=name,
        identity=b"",
        backbone=backbone.name,
        input_size=backbone.input_size,
        mean=mean,
        std=std,
        classes=classes,
        exit_stages=max(layouts),
        stages=tuple(stages),
        layouts=layouts,
        decider=decider,
        coder=coder,
        cloud_file=CLOUD_FILE,
        trained=trained,
        checksums={},
        fuse=cloud.fuse,
        combinations=cloud.combinations,
    )
    return draft.save(notes)


def _export_stage(directory: Path, backbone: Backbone, n: int, encoder: StageEncoder | None) -> StageFile:
    specs = backbone.stage_specs
    last = n == len(specs)
    module = backbone.head if last else backbone.stages[n - 1]
    into = specs[n - 2] if n > 1 else None
    shape = (1, into.channels, into.size, into.size) if into else (1, 3, backbone.input_size, backbone.input_size)
    names = ["output"] if encoder is None else ["output", "latent"]
    file = f"{'head' if last else f'stage{n:02d}'}.onnx"
    (directory / file).write_bytes(_onnx(_DeviceStage(module, encoder), shape, names))
    macs = asdict(specs[n - 1].macs)
    if encoder is not None:
        macs["conv"] += encoder.channels * specs[n - 1].channels * specs[n - 1].size ** 2
    return StageFile(n, {"float": file}, macs)


def _onnx(graph: nn.Module, shape: tuple[int, ...], names: list[str]) -> bytes:
    """A module as an ONNX file with weights in half precision."""
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # every shape here is fixed, which the tracer cannot know
        torch.onnx.export(
            graph.eval(),
            (torch.zeros(shape),),
            buffer,  # type: ignore[arg-type]
            input_names=["features"],
            output_names=names,
            opset_version=OPSET,
            dynamo=False,
        )
    content: bytes = half_weights(onnx.load_from_string(buffer.getvalue())).SerializeToString()
    return content


CODING = 5
"""Operations of quantising, scanning and coding a number, as :func:`fleet.baselines.pictures.operations` has them for
JPEG; what its contexts take comes on top."""


def export_picture(
    directory: Path, encoder: PictureEncoder, exit0: PictureExit, base: Backbone, layout: StageLayout
) -> StageFile:
    """Write stage 0's files into a bundle's folder: what the device runs, and the hub's exit.

    Args:
        directory: of the bundle.
        encoder: of the picture.
        exit0: the exit that looks at it.
        base: the bundle's base network, as it is stored; the exit's own stages are stored as their change from it.
        layout: of stage 0.

    Raises:
        FleetError: the directory cannot be written.
    """
    size = base.input_size
    with counting(encoder) as macs, torch.no_grad():
        encoder.eval()(torch.zeros(1, 3, size, size))
    found = asdict(sum(macs, Macs()))
    found["conv"] += 3 * size**2  # for colours at half the resolution every value of the picture is added up once
    found["linear"] += CODING * layout.count
    if layout.contexts is not None:
        found["linear"] += layout.contexts.operations * layout.ladder.finest**2
    keys = module_keys(base)
    weights = {keys.get(key, key): value for key, value in base.state_dict().items()}
    state = exit0.state_dict()
    own = {key: value for key, value in state.items() if key.startswith(PICTURE_STAGES)}
    packed = packed_trunk(own, weights, nibbles=True)
    packed |= {key: value for key, value in state.items() if key not in own}
    try:
        (directory / PICTURE_STAGE).write_bytes(_onnx(encoder, (1, 3, size, size), ["latent"]))
        save_file(
            {k: v if k.startswith(TRUNK_STEP) else _shipped(v) for k, v in packed.items()}, directory / PICTURE_EXIT
        )
        (directory / PICTURE_EXIT).chmod(0o644)
    except OSError as err:
        raise FleetError(f"cannot write the picture's files to {directory}: {err.strerror}") from err
    return StageFile(PICTURE, {"float": PICTURE_STAGE, "int8": PICTURE_STAGE}, found)


def half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights in half precision behind a cast that ONNX Runtime folds when it loads: half the download."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or not tensor.dims:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    for at, cast in enumerate(casts):
        model.graph.node.insert(at, cast)
    onnx.checker.check_model(model)
    return model


def _shipped(value: Tensor) -> Tensor:
    """A tensor of the hub's as it is stored: in half precision where that can hold it."""
    half = value.half() if value.is_floating_point() else value
    return (half if torch.isfinite(half).all() else value).contiguous()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums come out alike whatever the number of threads elsewhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def untrained_bundle(directory: Path, *, classes: Classes, seed: int, input_size: int = 64) -> Bundle:
    """A bundle that runs and means nothing: for plumbing, tests, and measuring without a model.

    Args:
        directory: where to write it.
        classes: what it pretends to recognise.
        seed: of its random weights.
        input_size: 32 or 64 pixels.

    Raises:
        FleetError: the directory cannot be written.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _one_thread():
        torch.manual_seed(seed)
        backbone = build_backbone("mobilenetv3", input_size=input_size, classes=len(classes))
        # A new norm has seen nothing: one noisy batch gives every stage a scale to work on.
        backbone.train()(torch.randn(8, 3, input_size, input_size))
        backbone.eval()
        channels = {n: min(6, n + 1) for n in range(1, backbone.exit_stages + 1)}
        largest = input_size // 4
        modules = new_encoders(backbone, channels, base=largest // 4, largest=largest, levels=16)
        encoders, means, latents = {}, {}, {}
        features = torch.randn(8, 3, input_size, input_size)
        for n in channels:
            features = backbone.stages[n - 1](features)
            encoder = modules[str(n)]
            assert isinstance(encoder, StageEncoder)
            latent = encoder(features)
            encoder.calibrate(latent)
            encoders[n], means[n], latents[n] = encoder, latent.mean((0, 2, 3)), latent.numpy()
        rungs = tuple(range(largest // 4, largest + 1, 2))
        layouts = stage_layouts(encoders, means, base=largest // 4, rungs=rungs, order="centre")
        return export_bundle(
            directory,
            name="untrained",
            cloud=CloudNetwork(backbone, channels),
            encoders=encoders,
            layouts=counted(layouts, latents),
            classes=classes,
            decider=Decider(classes, {}, {}),
            coder=coder_named("fleet"),
            mean=MEAN,
            std=STD,
            trained=False,
            notes={"weights": f"random, seed {seed}"},
        )
