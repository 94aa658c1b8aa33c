import numpy as np
import pytest

from wyloop.models.crystal import Crystal
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.models.wyckoff.templates import Templates, exchanged, prototype

EDGE = 3.905  # Å, SrTiO3
SITES = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])


def perovskite(large: str, small: str, edge: float = EDGE) -> Crystal:
    return Crystal(edge * np.eye(3), (large, small, "O", "O", "O"), SITES)


KNOWN = [perovskite("Sr", "Ti"), perovskite("K", "Ta", 3.99)]


def test_genes_of_one_prototype_have_one_label() -> None:
    first, second = encode(KNOWN[0]), encode(KNOWN[1])
    assert prototype(first)[0] == prototype(second)[0] != prototype(Gene.parse("225 Cl:b Na:a"))[0]
    assert prototype(Gene.parse("225 Cl:b Na:a"))[1] == (("Cl", "Na"), ("Na", "Cl"))  # its two positions are alike
    assert len(prototype(first)[1]) == 1


def test_starts_come_from_the_nearest_elements_at_the_volume_asked_for() -> None:
    templates = Templates((encode(crystal), crystal) for crystal in KNOWN)
    gene = canonical(Gene.parse("221 Ba:b Hf:a O:d"))
    one, other = templates.starts(gene, 14.5, 3)
    for start in (one, other):
        assert encode(start) == gene
        assert start.volume / start.nsites == pytest.approx(14.5)
    assert templates.starts(gene, 14.5, 1)[0].amounts == {"Ba": 1, "Hf": 1, "O": 3}
    assert templates.starts(Gene.parse("227 Al:d Mg:a O:e"), 9.0, 3) == []


def test_too_many_elements_and_cells_too_small_give_nothing() -> None:
    many = Gene.parse("1 Al:a Ba:a Ca:a Dy:a Er:a O:a")
    assert prototype(many) == ("", ())
    assert Templates([(many, KNOWN[0])]).starts(many, 20.0, 2) == []
    assert exchanged(KNOWN[0], {"Sr": "Ba", "Ti": "Hf", "O": "S"}, 0.01) is None
