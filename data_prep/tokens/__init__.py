# SPDX-License-Identifier: Apache-2.0
"""From audio files to token shards."""
