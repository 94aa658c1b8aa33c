# ruff: noqa: B018 - the last expression of a cell is what a notebook shows
# %% [markdown]
# # A first look
# Connect, bring the starter set in, ask, plot. Run as a script or open with Jupytext.

# %%
from wyloop.platform.notebook import connect

wy = connect()
wy.ingest()
wy

# %%
oxides = wy.query("elements has O and band_gap > 3", limit=5, sort="-band_gap")
oxides

# %%
wy.structure(oxides[0]["id"])

# %%
figure = wy.plot("gap-energy")
figure

# %%
wy.close()
