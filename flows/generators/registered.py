"""Generators by name: those that come with the package, and those of other packages' entry points."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from wyloop.flows.generators.decoration import Decoration, Substitution
from wyloop.flows.generators.interface import Generator
from wyloop.flows.generators.mpvae import ConditionalMPVAE, PerturbingMPVAE
from wyloop.flows.generators.published import Published
from wyloop.models.errors import CampaignError

GROUP = "wyloop.generators"
"""Entry point group: each entry is a `Generator`, or a class or function without arguments that makes one."""


def own_generators(published_weights: Path | None = None) -> dict[str, Generator]:
    """Return the generators that come with the package, by name."""
    own: tuple[Generator, ...] = (
        ConditionalMPVAE(),
        PerturbingMPVAE(),
        Published(published_weights),
        Substitution(),
        Decoration(),
    )
    return {generator.name: generator for generator in own}


def generator(name: str, published_weights: Path | None = None) -> Generator | None:
    """Return a generator by its name; None if there is none, such as one whose crystals come by file.

    Raises:
        CampaignError: An entry point of this name does not load, or is no generator.
    """
    own = own_generators(published_weights)
    if name in own:
        return own[name]
    for entry in entry_points(group=GROUP, name=name):
        return _loaded(name, entry)
    return None


def names() -> list[str]:
    """Return the names of all generators that are installed."""
    return sorted({*own_generators(), *(entry.name for entry in entry_points(group=GROUP))})


def shares(weights: Mapping[str, float], n: int) -> dict[str, int]:
    """Divide n among generators by their shares, to the whole number that is nearest, by the largest remainders.

    Args:
        weights: Share of each generator; they need not add up to one.
        n: What is divided.

    Returns:
        A whole number for each, in the same order; together exactly n.
    """
    total = sum(weights.values())
    exact = {name: n * weight / total for name, weight in weights.items()}
    found = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(weights, key=lambda name: (found[name] - exact[name], list(weights).index(name)))
    for name in by_remainder[: n - sum(found.values())]:
        found[name] += 1
    return found


def _loaded(name: str, entry: Any) -> Generator:  # noqa: ANN401 - importlib's
    try:
        made = entry.load()
        if not isinstance(made, Generator) or isinstance(made, type):
            made = made()
    except Exception as error:  # noqa: BLE001 - another package's code: whatever it raises becomes one line
        why = " ".join(str(error).split())[:200]
        raise CampaignError(
            f"generator {name!r} of {entry.value} does not load ({type(error).__name__}: {why}); expected a Generator; "
            "mend or uninstall that package, or take it out of the policy"
        ) from error
    if not isinstance(made, Generator) or made.name != name:
        raise CampaignError(
            f"{entry.value} is no generator named {name!r}; expected an object with this name and a method propose"
        )
    return made
