# SPDX-License-Identifier: Apache-2.0
"""What `inspect` looks for in corpora and shards."""
