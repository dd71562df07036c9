"""Every public loss has a check that does not come from the code itself.

Golden values of a reference code, or a test against something independent: loops, a
library of statistics, a limit, an invariance, an identity of gradients. A new name in
`kdopt.losses` fails here until it has one.
"""

import importlib
import inspect
import re

import pytest

from kdopt import losses
from tests.losses import _table
from tests.losses.test_golden import GOLDEN

CHECKS = {
    "CrdState": ["crd.step_by_hand", "crd.survives_a_checkpoint"],
    "at": ["golden.at", "golden.at_pooled", "at.by_loops"],
    "batch_correlation": ["mlkd.correlations_by_loops"],
    "binary_cross_entropy": ["binary.golden", "binary.gradients"],
    "binary_kd": ["binary.golden", "binary.one_class_against_its_negation_is_kd"],
    "class_correlation": ["mlkd.correlations_by_loops"],
    "class_means": ["nd.class_means", "labels.class_means_count_in_part"],
    "crd": ["golden.crd", "crd.step_by_hand", "crd.replicas_write_one_memory"],
    "crd_init": ["crd.negatives_are_uniform_over_the_other_classes"],
    "cross_entropy": ["golden.cross_entropy", "labels.smoothing_of_one_hot_labels"],
    "ctkd_reversal": ["ctkd.schedule"],
    "ctkd_temperature": ["ctkd.gradient_is_reversed_and_scaled"],
    "deepkd": ["deepkd.parts_sum_to_kd", "deepkd.mask_against_the_classes_taken_out"],
    "deepkd_top_k": ["deepkd.schedule"],
    "dist": ["golden.dist_1", "golden.dist_4", "dist.against_numpy_correlations"],
    "dkd": ["golden.dkd", "logits.kd_is_dkd_weighted_by_the_teacher"],
    "fitnet": ["fitnet.value_and_gradient"],
    "hcl": ["golden.hcl_8", "golden.hcl_4", "golden.hcl_1", "hcl.pyramid_by_hand"],
    "kd": [
        "golden.kd_1",
        "golden.kd_4",
        "logits.hot_kd_is_the_squared_distance_of_centred_logits",
    ],
    "kd_multi": ["mlkd.temperatures_add_up"],
    "kd_standardized": ["standardize.is_kd_of_the_standardised"],
    "jensen_shannon": [
        "tokens_golden.double_precision",
        "mixtures.small_beta_is_a_small_loss",
    ],
    "kdsvd": ["kdsvd.against_svd", "kdsvd.gradient_against_differences"],
    "linear_losses": ["linear.values_and_gradients_are_those_of_the_logits"],
    "mlkd": ["mlkd.relations_are_of_the_first_view"],
    "nd": ["golden.nd", "nd.too_long_is_left_alone"],
    "nst": ["golden.nst", "nst.by_loops"],
    "ofd": ["golden.ofd", "ofd.cases"],
    "ofd_margin": ["ofd.margin_is_the_mean_of_the_negative_part"],
    "pkt": ["golden.pkt", "pkt.by_loops"],
    "reverse_kl": ["tokens_golden.gradients_are_the_closed_forms"],
    "rkd": ["golden.rkd", "rkd.rotation_shift_and_scale_are_not_seen"],
    "rkd_angle": ["golden.rkd_angle", "rkd.by_loops"],
    "rkd_distance": ["golden.rkd_distance", "rkd.by_loops"],
    "skew_kl": ["tokens_golden.double_precision", "mixtures.exchange_of_the_networks"],
    "soft_distance": [
        "logits.gradient_with_untied_temperatures",
        "logits.kl_is_ce_less_the_entropy_of_the_teacher",
        "logits.mse_is_that_of_scaled_logits",
    ],
    "sp": ["golden.sp", "sp.by_numpy"],
    "span_cross_entropy": ["span.parts_are_those_of_tokens"],
    "span_kd": ["span.golden_values"],
    "standardize_logits": ["standardize.moments"],
    "top_k_kl": ["top_k.golden_values", "tokens_golden.gradients_are_the_closed_forms"],
    "total_variation": ["tokens_golden.gradients_are_the_closed_forms"],
    "tpkd": ["tpkd.gradient_against_bisection"],
    "universal_logit": ["tokens_golden.gradient_through_the_sort"],
    "vid": ["golden.vid", "vid.is_the_gaussian_likelihood"],
    "vkd": ["vkd.by_numpy"],
}
# Seen through another in the table of all losses.
SEEN_BY = {"rkd_distance": "rkd", "rkd_angle": "rkd"}


def test_the_table_is_complete():
    assert set(CHECKS) == set(losses.__all__)


@pytest.mark.parametrize("name", CHECKS)
def test_the_checks_exist(name):
    assert CHECKS[name]
    for check in CHECKS[name]:
        module, test = check.split(".")
        if module == "golden":
            assert test in GOLDEN
        else:
            found = importlib.import_module(f"tests.losses.test_{module}")
            assert callable(getattr(found, f"test_{test}"))
            assert name in inspect.getsource(found) or name == "CrdState"


def test_whatever_takes_weights_is_in_the_table_of_all_losses():
    """There each is masked, in half precision, and at its edges."""
    weighted = {
        name
        for name in losses.__all__
        if "sample_weights" in inspect.signature(getattr(losses, name)).parameters
    }
    called = set(re.findall(r"losses\.(\w+)", inspect.getsource(_table)))
    seen = {name for name in weighted if SEEN_BY.get(name, name) in called}
    assert weighted == seen
