# SPDX-License-Identifier: Apache-2.0
"""The paper: network, masking, losses, guidance and decoding."""
