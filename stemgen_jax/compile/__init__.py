# SPDX-License-Identifier: Apache-2.0
"""What the compiler makes of training and sampling for a machine that is not at hand."""
