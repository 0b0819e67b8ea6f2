# SPDX-License-Identifier: Apache-2.0
"""The real radio: a camera on bumble, a hub on bleak. Pure asyncio; neither library is imported before it is needed.

==================  ==========================================================================
module              what it holds
==================  ==========================================================================
``service``         UUIDs and the bytes of the GATT service
``phase``           when the next connection event is due, as far as the host can see
``settings``        how a camera presents itself, and what its radio is doing
``pump``            hands packets to the controller, as few and as late as it may
``camera``          :class:`~fleet.ble.camera.Camera`, the peripheral
``connection``      one connection of the camera
``bonds``           who may bond with the camera
``hub``             :class:`~fleet.ble.hub.Hub`, the central
``gaps``            what was lost, from sequence numbers
``adapter``         bumble's transports by name, with one clear line when one does not open
``radio``           both radios for callers with threads
``surroundings``    clock and radio of an inference without ROS
``background``      an event loop in a thread, for callers that have none
==================  ==========================================================================
"""
