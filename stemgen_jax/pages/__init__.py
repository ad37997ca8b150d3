# SPDX-License-Identifier: Apache-2.0
"""Reports that people open in a browser."""
