# SPDX-License-Identifier: Apache-2.0
"""Trains codecs and their decoders."""
