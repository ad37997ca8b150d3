# SPDX-License-Identifier: Apache-2.0
"""What every command needs: flags, folders, progress bars, the compilation cache."""
