# SPDX-License-Identifier: Apache-2.0
"""The duty-cycled radio as pure functions and one small object; time is always an argument.

==================  ==========================================================================
module              what it holds
==================  ==========================================================================
``airtime``         time on the air per PHY, exchanges that fit one connection event
``parameters``      :class:`~fleet.link.parameters.LinkParameters`, checked when it is made
``scheduler``       :class:`~fleet.link.scheduler.Scheduler`, which packet goes in which event
``accounting``      what the scheduler reports: events, inferences, running totals
``loss``            independent and bursty loss
``energy``          energy of one connection event, phase by phase
``radios``          nRF5340, nRF52840 and nRF52832 as data
``transfer``        how long a transfer takes that needs every byte
==================  ==========================================================================
"""
