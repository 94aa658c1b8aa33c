from pathlib import Path

import numpy as np
import pytest

from wyloop.models.errors import ModelError
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.figures import draw_figures, principal_axes


def test_figures_are_written_and_repeatable(tiny: Checkpoint, rows: list[TrainingRow], tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    written = draw_figures(tiny, rows, tmp_path / "one", n=12, on_progress=lambda done, n: steps.append((done, n)))
    assert [path.name for path in written] == [
        "figure_2_latent.png",
        "figure_2_latent.svg",
        "figure_2_densities.png",
        "figure_2_densities.svg",
    ]
    assert steps[-1] == (5, 5)
    latent, densities = (path.read_text() for path in written[1::2])
    for text in ("Band gap", "Formation energy", "Crystal system", "cubic"):
        assert f"<!-- {text}" in latent or text in latent
    assert "eV/atom" in densities
    assert written[0].read_bytes()[:4] == b"\x89PNG"


def test_principal_axes_find_the_widest_directions() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 4)) * [5.0, 0.1, 2.0, 0.1] + 7.0
    projected, shares = principal_axes(points)
    # 500 points tilt the axes by about 5 * 2 / (25 - 4) / sqrt(500) = 0.02: 0.05 of the first gets into the second.
    assert abs(np.corrcoef(projected[:, 0], points[:, 0])[0, 1]) > 0.999
    assert abs(np.corrcoef(projected[:, 1], points[:, 2])[0, 1]) > 0.99
    assert shares == pytest.approx([25 / 29.02, 4 / 29.02], abs=0.03)


def test_too_few_rows_are_one_clear_error(tiny: Checkpoint, rows: list[TrainingRow], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="3 rows with formation energy"):
        draw_figures(tiny, [row for row in rows if "band_gap" in row.labels][:3], tmp_path)
    assert not list(tmp_path.iterdir())
