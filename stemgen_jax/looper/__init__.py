# SPDX-License-Identifier: Apache-2.0
"""The looper: a page on which one plays with the model, lane by lane."""
