# SPDX-License-Identifier: Apache-2.0
"""A page on which people rate stems, and what their ratings come to."""
