# SPDX-License-Identifier: Apache-2.0
"""One file a training run: what it reproduces, on what, and the command."""
