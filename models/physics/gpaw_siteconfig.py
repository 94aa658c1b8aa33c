"""GPAW's build settings for `GPAW_CONFIG`: one process without MPI, sources compiled as the C++17 that they are.

GPAW reads these names from the file; setuptools would compile its `.c` files as C, which fails on `<algorithm>`.
"""

mpi = False
compiler = "g++"
libraries = ["xc", "openblas"]
