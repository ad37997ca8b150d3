# SPDX-License-Identifier: Apache-2.0
"""`python -m stemgen_jax.evaluate`: full generations for held-out songs, measured and shown."""
