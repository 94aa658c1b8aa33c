"""The decoder: a latent vector to a space group, then orbits one by one, with every impossible choice masked."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from wyloop.models.mpvae.config import NetworkConfig
from wyloop.models.mpvae.data import Batch, GeneArrays
from wyloop.models.mpvae.grammar import NO_LIMIT, Grammar, Limits, State, letter_mask, order_mask
from wyloop.models.mpvae.vocabulary import N_GROUPS, N_LETTERS, STOP, elements


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihoods of genes, nats, shape (n,) each."""

    space_group: Tensor
    orbits: Tensor


class Decoder(nn.Module):
    """A gated recurrent unit over orbits in canonical order, conditioned on the latent vector."""

    def __init__(self, config: NetworkConfig, positions: nn.Module) -> None:
        super().__init__()
        width, key = config.decoder_width, config.decoder_width // 2
        self.grammar = Grammar()
        self.positions = positions
        self.to_space_group = nn.Sequential(nn.Linear(config.latent_dim, width), nn.GELU(), nn.Linear(width, N_GROUPS))
        self.of_group = nn.Embedding(N_GROUPS, width)
        self.of_latent = nn.Linear(config.latent_dim, width)
        self.of_element = nn.Embedding(len(elements()) + 1, width)
        self.of_position = nn.Linear(key, width)
        self.start = nn.Linear(config.latent_dim, width)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.to_element = nn.Linear(width, len(elements()) + 1)
        self.query = nn.Sequential(nn.GELU(), nn.Linear(width, key))
        self.query_element = nn.Embedding(len(elements()) + 1, width)

    def likelihood(self, latent: Tensor, target: Batch) -> Likelihood:
        """Score canonical genes, given their latent vectors (teacher forcing)."""
        length, group = target.element.shape[1], target.space_group
        space_group = cross_entropy(self.space_group_logits(latent), group, reduction="none")
        zeros = torch.zeros_like(target.element[:, :1])
        last_element, last_letter = torch.cat([zeros, target.element], 1), torch.cat([zeros, target.letter], 1)
        place = self.positions(group.unsqueeze(1).expand_as(last_letter), last_letter)
        hidden, _ = self.cell(self._inputs(latent, group, last_element, place), self._start(latent))
        present = target.element != STOP
        placed = one_hot(target.letter, N_LETTERS).bool() & present.unsqueeze(-1)
        used = torch.cat([torch.zeros_like(placed[:, :1]), placed.cumsum(dim=1) > 0], 1)
        groups = group.unsqueeze(1).expand(-1, length + 1)
        open_letters = self.grammar.open_letters(groups, used, torch.full_like(groups, NO_LIMIT))
        answers = torch.cat([target.element, zeros], 1)
        is_scored = torch.cat([torch.ones_like(present[:, :1]), present], 1)
        allowed = order_mask(last_element, last_letter, open_letters, len(elements()) + 1)
        element_logits = self.to_element(hidden).masked_fill(~allowed, -torch.inf)
        element = _nll(element_logits, answers, is_scored)
        hidden, answers = hidden[:, :-1], answers[:, :-1]
        allowed = letter_mask(last_element[:, :-1], last_letter[:, :-1], answers, open_letters[:, :-1])
        letters = torch.arange(N_LETTERS, device=group.device).expand(len(group), -1)
        keys = self.positions(group.unsqueeze(1).expand_as(letters), letters)
        letter_logits = self._letter_logits(hidden, answers, keys).masked_fill(~allowed, -torch.inf)
        return Likelihood(space_group, element + _nll(letter_logits, target.letter, present))

    def space_group_logits(self, latent: Tensor) -> Tensor:
        """Return logits over ITA numbers, number 0 impossible, shape (n, 231)."""
        logits: Tensor = self.to_space_group(latent)
        return torch.cat([torch.full_like(logits[:, :1], -torch.inf), logits[:, 1:]], dim=1)

    @torch.no_grad()
    def decode(
        self, latent: Tensor, limits: Limits, *, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> GeneArrays:
        """Write one valid gene for every latent vector: the most likely choices, or drawn ones if the temperature > 0.

        Args:
            latent: Shape (n, latent_dim).
            limits: What the genes must be; at least one space group must be possible.
            temperature: Divides the logits before drawing.
            generator: Source of randomness; needed if the temperature is not 0.
        """
        possible = self.grammar.space_group_mask(limits)
        logits = self.space_group_logits(latent).masked_fill(~possible, -torch.inf)
        group = _choose(logits, temperature, generator)
        state, hidden = self.grammar.start(group, limits), self._start(latent)
        element, letter = torch.zeros_like(group), torch.zeros_like(group)
        alive = torch.arange(len(group), device=group.device)
        written: list[tuple[Tensor, Tensor]] = []
        positions = self._all_positions()
        while len(alive):
            place = positions[state.space_group, letter].unsqueeze(1)
            inputs = self._inputs(latent, state.space_group, element.unsqueeze(1), place)
            output, hidden = self.cell(inputs, hidden)
            output = output[:, 0]
            open_letters = self.grammar.open_letters(state.space_group, state.used, state.room)
            allowed = self.grammar.element_mask(state, open_letters, limits)
            element = _choose(self.to_element(output).masked_fill(~allowed, -torch.inf), temperature, generator)
            going = (element != STOP).nonzero().squeeze(1)
            alive, latent, hidden, element = alive[going], latent[going], hidden[:, going], element[going]
            state = _rows(state, going)
            if not len(alive):
                break
            allowed = letter_mask(state.element, state.letter, element, open_letters[going])
            keys = positions[state.space_group]
            logits = self._letter_logits(output[going].unsqueeze(1), element.unsqueeze(1), keys)[:, 0]
            letter = _choose(logits.masked_fill(~allowed, -torch.inf), temperature, generator)
            state = self.grammar.advance(state, element, letter)
            columns = torch.zeros(2, len(group), dtype=torch.int64, device=group.device)
            columns[0, alive], columns[1, alive] = element, letter
            written.append((columns[0], columns[1]))
        elements_written = torch.stack([column[0] for column in written], dim=1)
        letters_written = torch.stack([column[1] for column in written], dim=1)
        return GeneArrays(group.cpu().numpy(), elements_written.cpu().numpy(), letters_written.cpu().numpy())

    def _start(self, latent: Tensor) -> Tensor:
        return torch.tanh(self.start(latent)).unsqueeze(0)

    def _all_positions(self) -> Tensor:
        """Embed every position of every group once, shape (231, 27, width / 2)."""
        letters = torch.arange(N_LETTERS, device=self.grammar.exists.device).expand(N_GROUPS, -1)
        groups = torch.arange(N_GROUPS, device=letters.device).unsqueeze(1).expand_as(letters)
        embedded: Tensor = self.positions(groups, letters)
        return embedded

    def _inputs(self, latent: Tensor, group: Tensor, element: Tensor, place: Tensor) -> Tensor:
        """Describe the orbit before each step; place is its embedded position, shape (n, length, width / 2)."""
        place = self.of_position(place) * (element != STOP).unsqueeze(-1)
        inputs: Tensor = self.of_element(element) + place + (self.of_group(group) + self.of_latent(latent)).unsqueeze(1)
        return inputs

    def _letter_logits(self, hidden: Tensor, element: Tensor, keys: Tensor) -> Tensor:
        """Score letters for orbits of known elements, shape (n, length, 27); keys (n, 27, width / 2) embed them."""
        query = self.query(hidden + self.query_element(element))
        logits: Tensor = torch.einsum("nlk,nwk->nlw", query, keys) / keys.shape[-1] ** 0.5
        return logits


def _nll(logits: Tensor, answers: Tensor, is_scored: Tensor) -> Tensor:
    """Sum of -log p over the scored places of each row, nats."""
    chosen = logits.masked_fill(~is_scored.unsqueeze(-1), 0.0).log_softmax(dim=-1)
    nll = -chosen.gather(-1, answers.unsqueeze(-1)).squeeze(-1)
    return (nll * is_scored).sum(dim=1)


def _choose(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature <= 0:
        return logits.argmax(dim=-1)
    # The Gumbel trick: the argmax of logits with this noise is a draw from their softmax.
    uniform = torch.rand(logits.shape, generator=generator).clamp(min=1e-20).to(logits.device)
    return (logits / temperature - torch.log(-torch.log(uniform))).argmax(dim=-1)


def _rows(state: State, rows: Tensor) -> State:
    return State(*(getattr(state, name)[rows] for name in State.__dataclass_fields__))
