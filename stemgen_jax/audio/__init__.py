# SPDX-License-Identifier: Apache-2.0
"""Sound in and out: files, loudness, onsets."""
