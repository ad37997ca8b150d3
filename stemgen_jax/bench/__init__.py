# SPDX-License-Identifier: Apache-2.0
"""Measures speed: every subcommand prints a table, and can write its rows as JSON."""
