# SPDX-License-Identifier: Apache-2.0
"""Chorales and MIDI files as the songs of a band, rendered."""
