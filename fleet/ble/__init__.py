# SPDX-License-Identifier: Apache-2.0
"""The real radio: a camera on bumble, a hub on bleak. Pure asyncio; neither library is imported before it is needed.

==================  ==========================================================================
module              what it holds
==================  ==========================================================================
``service``         UUIDs and the bytes of the GATT service
``phase``           when the next connection event is due, as far as the host can see
``camera``          :class:`~fleet.ble.camera.Camera`, the peripheral
``hub``             :class:`~fleet.ble.hub.Hub`, the central
``gaps``            what was lost, from sequence numbers
``adapter``         bumble's transports by name, with one clear line when one does not open
``background``      an event loop in a thread, for callers that have none
==================  ==========================================================================
"""
