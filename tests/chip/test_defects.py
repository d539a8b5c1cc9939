"""Recorded models on which the engines compute something else: ``linger.check`` names the operator and what helps."""

import zipfile
from pathlib import Path

import pytest

import linger

ARCHIVE = Path(__file__).parents[1] / "golden" / "defect.zip"

# case -> operator at fault, and what its finding says
NAMED = {
    "arcs/GRUInt/coarse_scales_t4": ("GRUInt", "transposed weights"),
    "arcs/GRUInt/coarse_scales_t6": ("GRUInt", "transposed weights"),
    "arcs/GRUInt/realistic_scales_output_zero": ("GRUInt", "output stays near 0"),
    "arcs/GluInt/defect_rank2": ("GluInt", "never applies the gate"),
    "arcs/GluInt/defect_rank3": ("GluInt", "never applies the gate"),
    "arcs/LogSoftmaxInt/defect_elementwise_log": ("LogSoftmaxInt", "logarithm of the raw integers"),
    "arcs/LogSoftmaxInt/defect_full_positive_domain": ("LogSoftmaxInt", "logarithm of the raw integers"),
    "venus/GRUInt/batch2": ("GRUInt", "the chips compute [1, T, D] only"),
    "venus/GRUInt/extreme": ("GRUInt", "halves the state"),
    "venus/GRUInt/fine_scales": ("GRUInt", "halves the state"),
    "venus/GRUInt/odd_d5_h7": ("GRUInt", "halves the state"),
    "venus/GRUInt/q7_hidden_t5": ("GRUInt", "scale_o must be 2**8"),
    "venus/GRUInt/q8_hidden_t5": ("GRUInt", "halves the state"),
    "venus/iqPad/mode_attr_reflect": ("iqPad", "'reflect' replicates the edge"),
    "venus/iqPad/mode_attr_replicate": ("iqPad", "'replicate' reflects"),
    "venus/iqSigmoid/unscaled_q8": ("iqSigmoid", "without scaling them up"),
    "venus/iqTanh/unscaled_q9": ("iqTanh", "without scaling them up"),
    "venus/net/layernorm_ffn_gru_small": ("GRUInt", "halves the state"),
    "venusA/GRUInt/coarse_scales_t4": ("GRUInt", "transposed weights"),
    "venusA/GRUInt/coarse_scales_t6": ("GRUInt", "transposed weights"),
    "venusA/GRUInt/realistic_scales_output_zero": ("GRUInt", "output stays near 0"),
    "venusA/iqSigmoid/wrapped_multiplier_q12": ("iqSigmoid", "in 16 bits"),
    "venusA/iqSigmoid/wrapped_multiplier_q4": ("iqSigmoid", "in 16 bits"),
}


@pytest.mark.parametrize("case", NAMED)
def test_check_names_what_the_engine_computes_otherwise(case):
    with zipfile.ZipFile(ARCHIVE) as archive:
        file = archive.read(f"{case}.onnx")
    operator, sentence = NAMED[case]
    report = linger.check(file)
    assert report.platform == case.split("/")[0]
    named = [v for v in report if v.operator == operator and sentence in str(v)]
    assert named and all(v.remedy and v.layer for v in named)


def test_every_recorded_defect_is_there():
    with zipfile.ZipFile(ARCHIVE) as archive:
        assert {name.removesuffix(".onnx") for name in archive.namelist()} == set(NAMED)
