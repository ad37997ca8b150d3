# SPDX-License-Identifier: Apache-2.0
"""Offline preparation: music, codecs and token shards. The only package that imports torch."""

import stemgen_jax  # noqa: F401, which lets Ctrl-C end a command while its modules are loaded
