# SPDX-License-Identifier: Apache-2.0
"""Offline preparation: music, codecs and token shards. The only package that imports torch."""
