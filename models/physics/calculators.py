"""ASE calculators by name: CHGNet, and any other through the entry point group `wyloop.calculators`.

An entry point names a function without arguments that returns an ASE calculator; the calculator may have an attribute
`supported_elements`. Density functional theory with GPAW is in dft.py.
"""

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CalculatorError

if TYPE_CHECKING:
    from chgnet.model.model import CHGNet

ENTRY_POINT_GROUP = "wyloop.calculators"
DEFAULT_CALCULATOR = "chgnet"
CHGNET_ELEMENTS = frozenset(chemical_symbols[1:95]) - {"Po", "At", "Rn", "Fr", "Ra"}
"""The 89 elements in CHGNet's training data. Source: Deng et al., doi:10.1038/s42256-023-00716-3."""

# What to install for well-known force fields; each still needs an entry point in a package of the user's.
PACKAGES = {"mace": "mace-torch", "orb": "orb-models", "sevennet": "sevenn", "mattersim": "mattersim"}


class UnsupportedElementsError(CalculatorError):
    """A crystal holds elements that the calculator does not know."""


def calculator(name: str = DEFAULT_CALCULATOR) -> Calculator:
    """Return a calculator of this name; its model is loaded once a process.

    Raises:
        CalculatorError: No calculator has the name, or it can't be loaded.
    """
    return _CHGNet() if name == DEFAULT_CALCULATOR else _from_plug_in(name)


def calculator_names() -> tuple[str, ...]:
    """Return the names that `calculator` knows, in alphabetical order."""
    return tuple(sorted({DEFAULT_CALCULATOR, *(point.name for point in _plug_ins())}))


def supported_elements(name: str = DEFAULT_CALCULATOR) -> frozenset[str]:
    """Return the symbols of the elements that a calculator knows; of a plug-in that does not say, all elements."""
    if name == DEFAULT_CALCULATOR:
        return CHGNET_ELEMENTS
    return frozenset(getattr(calculator(name), "supported_elements", chemical_symbols[1:]))


def check_elements(name: str, elements: Iterable[str]) -> None:
    """Check that a calculator knows every element.

    Raises:
        UnsupportedElementsError: It does not.
    """
    missing = sorted(set(elements) - supported_elements(name))
    if missing:
        raise UnsupportedElementsError(
            f"calculator {name!r} does not know {', '.join(missing)}; choose another one or leave the element out"
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block: two threads on a busy machine are up to twenty times slower."""
    import torch  # seconds to import

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plug_ins() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


@cache
def _from_plug_in(name: str) -> Calculator:
    point = next((point for point in _plug_ins() if point.name == name), None)
    if point is None:
        raise CalculatorError(
            f"no calculator {name!r}; expected one of {', '.join(calculator_names())}, or install "
            f"{PACKAGES.get(name, 'it')} with a package that names it in the entry point group {ENTRY_POINT_GROUP!r}"
        )
    try:
        factory = point.load()
    except (ImportError, AttributeError) as error:
        raise CalculatorError(f"calculator {name!r} ({point.value}) can't be loaded: {error}; install it") from error
    loaded = factory()
    if not isinstance(loaded, Calculator):
        raise CalculatorError(
            f"calculator {name!r} ({point.value}) is a {type(loaded).__name__}; expected an ASE calculator"
        )
    return loaded


class _CHGNet(Calculator):  # type: ignore[misc]  # ASE is only partly typed
    """CHGNet as an ASE calculator; chgnet's own prints, warns of symmetry constraints and is slower on small cells."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Calculate energy (eV), forces (eV/Å) and stress (eV/Å^3)."""
        super().calculate(atoms, properties, system_changes)
        (found,) = chgnet_results([self.atoms])
        if isinstance(found, Exception):
            raise found
        self.results = found


def chgnet_results(cells: Sequence[Atoms]) -> list[dict[str, Any] | Exception]:
    """Return CHGNet's energy (eV), forces (eV/Å) and stress (eV/Å^3) of each cell; what has no graph has its error.

    All cells are one batch. Forces and stress come from one backward pass; chgnet's own `predict_graph` makes two and
    keeps what third derivatives would need, which takes twice the time in all.
    """
    model = chgnet_model()
    answers: list[dict[str, Any] | Exception] = []
    graphs = []
    for atoms in cells:
        try:
            graphs.append(model.graph_converter(Crystal.from_ase(atoms).to_pymatgen()))
            answers.append({})
        except (RuntimeError, ValueError) as error:
            answers.append(error)
    places = [place for place, answer in enumerate(answers) if not isinstance(answer, Exception)]
    if graphs:
        for place, results in zip(places, _of_graphs(model, graphs), strict=True):
            answers[place] = results
    return answers


def _of_graphs(model: "CHGNet", graphs: list[Any]) -> list[dict[str, Any]]:
    import torch  # seconds to import
    from chgnet.model.model import BatchedGraph

    with warnings.catch_warnings():
        # torch 2.13 warns of how chgnet 0.4.2 makes the volume a scalar, which it needs no gradient of.
        warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad", category=UserWarning)
        batch = BatchedGraph.from_graphs(
            graphs,
            bond_basis_expansion=model.bond_basis_expansion,
            angle_basis_expansion=model.angle_basis_expansion,
            compute_stress=True,
        )
    told = model._compute(batch)  # what `forward` does, without its derivatives
    n_atoms = told["atoms_per_graph"]
    total = (told["e"] * n_atoms).sum()
    slopes = torch.autograd.grad(total, [*batch.atom_positions, *batch.strains])
    energies = told["e"].detach()
    if model.composition_model is not None:
        energies = energies + model.composition_model(graphs).detach()
    results = []
    for place, (energy, n, volume) in enumerate(zip(energies, n_atoms.tolist(), batch.volumes, strict=True)):
        stress = slopes[len(graphs) + place].double().numpy() / float(volume)
        total_energy = float(energy) * n
        results.append(
            {
                "energy": total_energy,
                "free_energy": total_energy,
                "forces": -slopes[place].double().numpy(),
                "stress": full_3x3_to_voigt_6_stress(stress),
            }
        )
    return results


@cache
def chgnet_model() -> "CHGNet":
    """Return CHGNet's network, loaded once a process."""
    # chgnet takes seconds to import, and prints.
    from chgnet.model.model import CHGNet

    with contextlib.redirect_stdout(io.StringIO()):
        model = CHGNet.load(use_device="cpu", verbose=False)
    model.graph_converter.set_isolated_atom_response("error")
    model.requires_grad_(False)  # of its weights; those of positions and strain are asked for
    return model
