# SPDX-License-Identifier: Apache-2.0
"""Steps, checkpoints, logs and what is measured beside them."""
