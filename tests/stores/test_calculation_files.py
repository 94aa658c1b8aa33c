"""Files of calculations: named by the document that was completed first, and no others are kept."""

import numpy as np

from tests.stores.crystals import NACL
from wyloop.stores import calculation_files, calculations
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.connection import Store


def test_only_the_files_that_a_calculation_names_are_kept(database: Store) -> None:
    asked = CalculationRecord("calc-1", None, None, "static", "225 Cl:b Na:a", "gpaw-static/1", "hash", inputs=(NACL,))
    calculations.request_calculation(database, asked)
    other = calculation_files.put_files(database, "calc-10", raw="another calculation's")
    lost = calculation_files.put_files(database, "calc-1", arrays={"x": np.ones(3)}, raw="of a worker that was killed")
    assert calculation_files.drop_unnamed(database, "calc-1") == 0  # it may be about to complete it
    files = calculation_files.put_files(database, "calc-1", arrays={"x": np.zeros(3)}, picture=b"<svg/>")
    assert calculations.complete(database, "calc-1", result={"energy_per_atom": -3.0}, files=files)
    late = calculation_files.put_files(database, "calc-1", raw="of a worker that was thought dead")
    assert not calculations.complete(database, "calc-1", result={"energy_per_atom": -4.0}, files=late)
    assert calculation_files.drop_unnamed(database, "calc-1") == len(lost) + len(late) == 3
    assert calculation_files.drop_unnamed(database, "calc-1") == 0
    assert calculation_files.arrays_of(database, "calc-1")["x"].tolist() == [0.0, 0.0, 0.0]
    assert calculation_files.picture_of(database, "calc-1") == b"<svg/>"
    assert {row["_id"] for row in database.database["fs.files"].find()} == {*files.values(), *other.values()}
