# SPDX-License-Identifier: Apache-2.0
"""From token shards to batches."""
