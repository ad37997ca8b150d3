# SPDX-License-Identifier: Apache-2.0
"""EnCodec in PyTorch, and the file formats it is published in."""
