"""`Settings` to YAML: a template with the comments that a user needs to edit it."""

from linger.settings.rules import CLAMP, QUANT, Scalar
from linger.settings.schema import Section, Settings
from linger.settings.tree import write_scalar

__all__ = ["COMMENTS", "dumps", "section_text"]

_HEAD = """\
# Configuration of linger, read by linger.constrain(model, config_file=...) and linger.init(model, config_file=...).
# A key that is left out has its default; an unknown key or a value that is not allowed is an error.
"""
_TAIL = """
# Per-layer settings: a section is a mapping with a list `name`; its key is free. A name covers the module and all
# modules below it; *, ? and [...] are wildcards on the whole name. The first section that covers a layer is used.
# What a section leaves out comes from the settings above. input_bits and output_bits exist only in sections.
# open_quant: false in a section keeps its layers and operators in float.
# Operators of user code have names too, which linger.summary shows: '*_linger_qtensor_qadd*' covers every x + y.
# my_section:
#   name: [encoder.layers.0, head*]
#   platform: arcs
#   quant_info: {weight_bits: 4, activate_bits: 16, input_bits: 8, output_bits: 16, qat_method: TQT}
#   clamp_info: {clamp_activation_value: 16}
"""
COMMENTS = {
    "calibration": "stored only; to calibrate, run batches inside `with linger.calibration():`",
    "clamp_info": "limits while training the constrained float model",
    "clamp_info.clamp_activation_value": "activations stay in [-value, value]; null: no limit",
    "clamp_info.clamp_bias_value": "biases stay in [-value, value]; null: no limit",
    "clamp_info.clamp_factor_value": "weights stay within weight.abs().mean() * value; null: no limit",
    "clamp_info.clamp_weight_value": "weights stay in [-value, value], instead of the factor; null: the factor rules",
    "device": "where the model is moved to: cpu, cuda, cuda:0 ...; without this key it stays where it is",
    "dtype": "of float layers: torch.float32, torch.float64, torch.float16 or torch.bfloat16",
    "engine": "release of the engine that files are for: 562ddc7 (the shipped one) or later; null: a model trained\n"
    "before this key existed, which keeps its arithmetic",
    "open_quant": "false: constrain and init leave the model as it is",
    "platform": "the chip: venus, mars, arcs or venusA",
    "quant_info": "number formats and methods of the quantized model",
    "quant_info.a_calibrate_name": "calibration of activations: top_10, abs_max, mse, w_like or a registered method",
    "quant_info.a_strategy": "exponent of activations: RANGE_MEAN (the nearest to the range) or\n"
    "LEAST_ERROR (in calibration the one of less squared error)",
    "quant_info.activate_bits": "width of activations: 8, 16 or 32",
    "quant_info.activation_type": "none, Relu, LeakRelu, ReluX, Sigmoid or Tanh",
    "quant_info.average_scale": "scale of means over whole axes: input (that of their operand, AvgPool2dInt) or own\n"
    "(finer, LinearInt): the mean of many values is small",
    "quant_info.bias_bits": "width of biases: 32",
    "quant_info.is_perchannel": "one scale per channel: false, no chip has it",
    "quant_info.is_symmetry": "symmetric codes: true",
    "quant_info.qat_method": "MOM (moving maximum) or TQT (trained thresholds)",
    "quant_info.round_mode": "floor_add (floor(x + 0.5), what the chips do), floor, round or ceil",
    "quant_info.w_calibrate_name": "calibration of weights: abs_max, top_10, mse, w_like or a registered method",
    "quant_info.w_strategy": "exponent of weights: RANGE_MEAN (the nearest to the range) or\n"
    "LEAST_ERROR (in every step the one of less squared error)",
    "quant_info.weight_bits": "width of weights: 4 or 8",
    "quant_method": "NATIVE (our kernels where the tensor is), CUDA (CUDA kernels or an error) or ONNX (as\n"
    "NATIVE, exported as standard operators); CUDA_GS, COMPILE, TRITON load, but init refuses them",
    "seed": "of torch, numpy and random, 0 to 4294967295; without this key nothing is seeded",
    "operators": "of user code, for the whole model: true runs in integers, false stays in float",
    "mix_parts": "kept for files of linger 3.x, always []",
}


def dumps(settings: Settings, *, comments: bool = True) -> str:
    """Return the YAML text of a configuration, with every documented key and, by default, its comment."""
    lines = [_HEAD] if comments else []
    for key in ("calibration", "clamp_info", "device", "dtype", "engine", "open_quant", "platform", "quant_info",
                "quant_method", "seed", "mix_parts"):  # fmt: skip
        if key in ("clamp_info", "quant_info"):
            lines.append(_line(key, "", comments))
            part = getattr(settings, key)
            keys = CLAMP if key == "clamp_info" else QUANT
            lines += [_line(f"{key}.{own}", write_scalar(getattr(part, own)), comments) for own in keys]
        else:
            lines.append(_line(key, "[]" if key == "mix_parts" else write_scalar(getattr(settings, key)), comments))
    if settings.operators:
        chosen = ", ".join(f"{write_scalar(name)}: {write_scalar(integers)}" for name, integers in settings.operators)
        lines.append(_line("operators", f"{{{chosen}}}", comments))
    lines.append(_TAIL if comments else "")
    for section in settings.sections:
        lines.append(section_text(section))
    return "".join(lines)


def _line(dotted: str, text: str, comments: bool) -> str:
    indent = "  " * dotted.count(".")
    start = f"{indent}{dotted.rpartition('.')[2]}:{' ' if text else ''}{text}"
    if not comments:
        return f"{start}\n"
    first, *more = COMMENTS[dotted].split("\n")
    return "".join([f"{start}  # {first}\n", *(f"{' ' * len(start)}  # {line}\n" for line in more)])


def section_text(section: Section) -> str:
    """Return the YAML lines of a section: what it names itself, nothing that it inherits."""
    lines = [f"\n{write_scalar(section.key)}:\n", "  name:\n", *(f"    - {write_scalar(n)}\n" for n in section.name)]
    if "platform" in section.given:
        lines.append(f"  platform: {write_scalar(section.platform)}\n")
    if "open_quant" in section.given:
        lines.append(f"  open_quant: {write_scalar(section.open_quant)}\n")
    for part in ("clamp_info", "quant_info"):
        own = [key.partition(".")[2] for key in section.given if key.startswith(part + ".")]
        values: dict[str, Scalar] = {key: getattr(getattr(section, part), key) for key in sorted(own)}
        if values:
            lines.append(f"  {part}:\n")
            lines += [f"    {key}: {write_scalar(value)}\n" for key, value in values.items()]
    return "".join(lines)
