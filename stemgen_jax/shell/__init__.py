# SPDX-License-Identifier: Apache-2.0
"""What every command needs: flags, folders, pages, the compilation cache."""
