# SPDX-License-Identifier: Apache-2.0
"""Plain PyTorch to measure against; `bench` starts it by name."""
