# SPDX-License-Identifier: Apache-2.0
"""Measures of what a trained model does."""
