# SPDX-License-Identifier: Apache-2.0
"""The schemes that a sweep compares: what each may choose, and how its frames end."""
