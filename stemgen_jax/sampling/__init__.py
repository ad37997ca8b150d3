# SPDX-License-Identifier: Apache-2.0
"""Context in, stem out."""
