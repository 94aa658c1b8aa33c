from wyloop.stores.ingest.optimade_fields import MP_STABILITY, PROVIDERS
from wyloop.stores.methods import JUDGES, METHODS, PBE_METHODS, functional_of
from wyloop.stores.training import training_labels


def test_methods_of_equal_functional_are_kept_apart() -> None:
    assert {"pbe", "mp-pbe", "oqmd-pbe", "alexandria-pbe", "gpaw-pbe", "vasp-pbe"} == PBE_METHODS
    for method in ("oqmd-pbe", "alexandria-pbe"):
        assert all(method not in judges for judges in JUDGES.values())
        labels = training_labels({"volume_per_atom": 20.0, "band_gap": 0.5, "band_gap_method": method})
        assert labels == {"volume_per_atom": 20.0, "band_gap": 0.5, "is_metal": 0.0}
    assert training_labels({"volume_per_atom": 20.0, "band_gap": 0.5, "band_gap_method": "alexandria-scan"}) == {
        "volume_per_atom": 20.0
    }


def test_every_method_says_which_functional_it_is() -> None:
    assert "PBE and PBE+U of OQMD" in functional_of("oqmd-pbe")
    assert functional_of("gpaw-pbe/1") == METHODS["gpaw-pbe"].functional
    assert functional_of("mine") == "not described; named 'mine' by its source"
    named = {provider.energy_method for provider in PROVIDERS.values()} | set(MP_STABILITY.values())
    assert {name for name in named if name not in METHODS} <= {"mp", "alexandria", "wyloop"}  # completed by the row
