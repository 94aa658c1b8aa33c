import pytest

from wyloop.models.errors import GeneError
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.labels import read_gene

PEROVSKITE = canonical(Gene.parse("221 O:c Sr:a Ti:b"))


def test_genes_and_protostructures() -> None:
    assert read_gene("221 O:c Sr:a Ti:b") == PEROVSKITE
    assert read_gene("A3BC_cP5_221_c_a_b:O-Sr-Ti") == PEROVSKITE
    assert read_gene(PEROVSKITE.protostructure) == PEROVSKITE
    spinel = canonical(Gene.parse("227 Al:d Mg:a O:e"))
    assert read_gene(spinel.protostructure) == spinel


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rubbish", "can't read gene 'rubbish'"),
        ("AB_cF8_225_a_b:Na", "names 1 elements for 2 groups of letters"),
        ("AB2_cF8_225_a_b:Cl-Na", "says AB2, but its letters make NaCl"),
        ("AB_cF8_225_a_?:Cl-Na", "can't read the Wyckoff letters"),
    ],
)
def test_what_can_t_be_read(text: str, message: str) -> None:
    with pytest.raises(GeneError, match=message.replace("?", r"\?")):
        read_gene(text)
