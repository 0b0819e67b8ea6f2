# SPDX-License-Identifier: Apache-2.0
"""What a robot does about a label, as rules that a test or a notebook can run; time is always an argument.

==============  ==============================================================================
module          what it holds
==============  ==============================================================================
``sighting``    one frame's label, and what a behaviour watches for
``frames``      k of the last n frames, whatever the order in which they arrive
``hours``       active hours by the local clock
``verdict``     why nothing happened, and whether that is worth a line in the log
``alarm``       :class:`~fleet.behaviours.alarm.Alarm`: on, off, silenced
``doorbell``    :class:`~fleet.behaviours.doorbell.Doorbell`: one ring a visit
==============  ==============================================================================
"""
