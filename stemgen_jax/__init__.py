# SPDX-License-Identifier: Apache-2.0
"""StemGen (arXiv:2312.08723) in JAX: a music model that listens."""

__version__ = "0.1.0"
