# SPDX-License-Identifier: Apache-2.0
"""What FLEET's nodes share: settings, quality of service, life cycle, clean exits."""
