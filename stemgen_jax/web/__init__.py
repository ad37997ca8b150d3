# SPDX-License-Identifier: Apache-2.0
"""Pages that this machine serves to itself: who is answered, and how a server runs."""
