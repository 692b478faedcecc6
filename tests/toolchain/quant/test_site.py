"""Sites: which products they stand for, and what of a file is refused."""

from __future__ import annotations

import pytest

from dq_toolchain.toolchain.quant.attention import ATTENTION_OPERANDS, PRODUCT_OPERANDS
from dq_toolchain.toolchain.quant.site import RESULTS, RIGHT_OPERANDS, Site, operand_bits, results_of

LAYERS = (Site("a", "input", "conv2d", 16, "symmetric", 4), Site("b.c", "input", "linear", 16, "symmetric", 8))
ATTENTION = tuple(
    Site("b", operand, "attention", operand_bits(operand, 16), "symmetric") for operand in ATTENTION_OPERANDS
)


def test_names_of_operands_and_results_are_those_of_the_products() -> None:
    assert ("output", *PRODUCT_OPERANDS) == RESULTS
    assert tuple(right for _, right in PRODUCT_OPERANDS.values()) == RIGHT_OPERANDS


def test_every_product_has_one_result_with_the_bits_of_its_first_operand() -> None:
    found = results_of((*LAYERS, *ATTENTION))
    assert [site.name for site in found] == ["a:output", "b.c:output", "b:scores", "b:values"]
    assert [site.kind for site in found] == ["conv2d", "linear", "attention", "attention"]
    assert {(site.bits, site.scheme, site.weight_bits) for site in found} == {(16, "symmetric", None)}
    assert all(site.is_result and site.fault() is None for site in found)
    assert not any(site.is_result for site in (*LAYERS, *ATTENTION))
    assert results_of((*LAYERS, *ATTENTION, *found)) == found  # results have no results


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_second_operands_of_attention_products_have_a_byte_at_most(bits: int) -> None:
    assert {operand: operand_bits(operand, bits) for operand in ATTENTION_OPERANDS} == {
        "q": bits, "k": min(bits, 8), "v": min(bits, 8), "probs": bits
    }  # fmt: skip


@pytest.mark.parametrize("bits", range(20))
def test_widths_that_no_device_has_are_refused(bits: int) -> None:
    is_known = bits in (2, 3, 4, 5, 6, 7, 8, 16)
    assert (Site("a", "input", "linear", bits, "symmetric", 8).fault() is None) == is_known


@pytest.mark.parametrize(
    "site",
    [Site("a", "input", "linear", 16, "affine", 8), Site("a", "k", "attention", 16, "symmetric"),
     Site("a", "v", "attention", 16, "symmetric")],
)  # fmt: skip
def test_16_bits_are_symmetric_and_of_first_operands(site: Site) -> None:
    assert "16 bits" in (site.fault() or "")
