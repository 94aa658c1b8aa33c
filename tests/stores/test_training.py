import pytest

from tests.flows.rounds import fill
from wyloop.models.errors import DatabaseError
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.builders.materials import build_materials
from wyloop.stores.connection import Store
from wyloop.stores.training import TrainingSnapshot, training_snapshot


def test_further_properties_of_materials_become_labels(database: Store) -> None:
    fill(database, step=40)
    build_materials(database)
    build_hulls(database)
    plain, further = training_snapshot(database), training_snapshot(database, properties=["energy_above_hull"])
    assert further.row_ids == plain.row_ids
    assert further.hash != plain.hash
    labelled = [row for row in further.rows if "energy_above_hull" in row.labels]
    assert labelled
    assert all(row.labels["energy_above_hull"] >= 0 for row in labelled)
    for row, other in zip(further.rows, plain.rows, strict=True):
        assert {name: value for name, value in row.labels.items() if name != "energy_above_hull"} == other.labels
    assert TrainingSnapshot.from_bytes(further.to_bytes()) == further


@pytest.mark.parametrize("name", ["band_gap", "colour", "formula_pretty", "$where"])
def test_what_is_no_further_number_is_refused(database: Store, name: str) -> None:
    with pytest.raises(DatabaseError, match=r"no further property .* expected one of .*energy_above_hull"):
        training_snapshot(database, properties=[name])
